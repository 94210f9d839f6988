//! Tests `xdpfwd-bench report` with synthetic results: the page, the Markdown summary, errors.

mod synthetic;

use std::path::Path;
use std::process::{Command, Output};

use scraper::{ElementRef, Html, Selector};
use synthetic::Kind;
use xdpfwd_bench::results::Results;

fn run(folder: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xdpfwd-bench"));
    command.arg("report").arg(folder).output().unwrap()
}

/// Writes results and their report. Returns the folder, the page and the Markdown summary.
fn report(results: &Results) -> (tempfile::TempDir, String, String) {
    let folder = tempfile::tempdir().unwrap();
    synthetic::write(folder.path(), results);
    let output = run(folder.path());
    assert!(output.status.success(), "{output:?}");
    let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
    let (page, markdown) = (read("report.html"), read("report.md"));
    (folder, page, markdown)
}

fn select<'a>(page: &'a Html, selector: &str) -> Vec<ElementRef<'a>> {
    page.select(&Selector::parse(selector).unwrap()).collect()
}

fn text(element: ElementRef) -> String {
    element.text().collect::<Vec<_>>().join("").trim().to_owned()
}

/// The figures of the answers at the top of the page.
fn figures(page: &str) -> Vec<String> {
    select(&Html::parse_document(page), ".answer .figure").into_iter().map(text).collect()
}

/// The value of an attribute, with its name.
fn attribute<'a>(element: ElementRef<'a>, name: &str) -> &'a str {
    element.value().attr(name).unwrap_or_else(|| panic!("no {name}: {}", element.html()))
}

#[test]
fn every_number_of_the_matrix_equals_the_medians_of_the_csv() {
    let (folder, page, _) = report(&synthetic::results(Kind::Full));
    let page = Html::parse_document(&page);
    // Python computes the medians of runs.csv and formats them.
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/medians.py");
    let output = Command::new("python3").arg(script).arg(folder.path()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut expected: Vec<String> =
        String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect();
    let mut shown: Vec<String> = select(&page, ".matrix td.measured")
        .into_iter()
        .map(|cell| {
            let names = ["data-row", "data-column", "data-size"].map(|name| attribute(cell, name));
            let numbers = ["b", "span"]
                .map(|part| text(cell.select(&Selector::parse(part).unwrap()).next().unwrap()));
            format!("{} {}", names.join(" "), numbers.join(" "))
        })
        .collect();
    expected.sort();
    shown.sort();
    assert!(expected.len() > 200, "{}", expected.len());
    assert_eq!(shown, expected);
}

#[test]
fn every_cell_is_measured_or_has_a_reason() {
    let results = synthetic::results(Kind::Full);
    let (_folder, page, markdown) = report(&results);
    let page = Html::parse_document(&page);
    let cells = select(&page, ".matrix td");
    assert_eq!(
        cells.len(),
        results.rows.len() * results.columns.len() * results.sizes.len(),
        "a cell is missing"
    );
    for cell in cells {
        match cell.value().classes().next() {
            Some("measured") => {}
            Some("unavailable" | "failed") => {
                let reason = attribute(cell, "title");
                assert!(reason.starts_with("n/a: ") || reason.starts_with("failed: "), "{reason}");
            }
            other => panic!("{other:?}: {}", cell.html()),
        }
    }
    for entry in &results.unavailable {
        let listed = select(&page, ".reasons li")
            .into_iter()
            .any(|li| text(li) == format!("n/a: {}", entry.reason));
        assert!(listed && markdown.contains(&entry.reason), "{entry:?}");
    }
    assert!(markdown.contains("cannot allocate &lt;mbufs&gt;"), "{markdown}");
}

#[test]
fn every_link_leads_to_an_element_and_the_page_loads_nothing() {
    for kind in Kind::ALL {
        let (_folder, page, _) = report(&synthetic::results(kind));
        let page = Html::parse_document(&page);
        let ids: std::collections::BTreeSet<&str> =
            select(&page, "[id]").into_iter().map(|element| attribute(element, "id")).collect();
        let all = select(&page, "[id]").len();
        assert_eq!(ids.len(), all, "{kind:?}: an id occurs twice");
        for link in select(&page, "a[href]") {
            let target = attribute(link, "href");
            let id = target.strip_prefix('#').unwrap_or_else(|| panic!("{kind:?}: {target}"));
            assert!(ids.contains(id), "{kind:?}: {}", link.html());
        }
        for element in select(&page, "[src], link, img, iframe, object, script") {
            let source = element.value().attr("src").or(element.value().attr("href"));
            assert!(source.is_none_or(|source| source.starts_with("data:")), "{}", element.html());
        }
    }
}

#[test]
fn every_mark_of_the_charts_shows_its_values() {
    let (_folder, page, _) = report(&synthetic::results(Kind::Full));
    let page = Html::parse_document(&page);
    let marks = select(&page, "svg a");
    assert!(marks.len() > 100, "{}", marks.len());
    for mark in marks {
        let title = mark.select(&Selector::parse("title").unwrap()).next().map(text);
        assert!(title.is_some_and(|title| title.contains('·') || title.contains("measured")));
        assert!(attribute(mark, "href").starts_with("#raw-"), "{}", mark.html());
    }
    // No coordinate is the result of a division by zero.
    for element in select(&page, "svg, svg *") {
        for (name, value) in element.value().attrs() {
            assert!(!value.contains("NaN") && !value.contains("inf"), "{name}={value}");
        }
    }
}

#[test]
fn every_answer_equals_that_computed_from_the_csv() {
    let mut results = synthetic::results(Kind::Full);
    for change in 0..2 {
        let (folder, page, _) = report(&results);
        let page = Html::parse_document(&page);
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/medians.py");
        let output = Command::new("python3")
            .arg(script)
            .arg(folder.path())
            .arg(synthetic::TSC_HZ.to_string())
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let expected: Vec<String> = String::from_utf8(output.stdout)
            .unwrap()
            .lines()
            .map(|line| {
                let row = |word: &str| {
                    let name = word.trim_end_matches(':');
                    let row = results.rows.iter().find(|row| row.name == name)?;
                    Some(format!("{}{}", row.title, &word[name.len()..]))
                };
                let words = line.split(' ').map(|word| row(word).unwrap_or(word.to_owned()));
                words.collect::<Vec<_>>().join(" ")
            })
            .collect();
        let shown: Vec<String> = select(&page, ".answer")
            .into_iter()
            .map(|answer| {
                let part = |class: &str| {
                    let selector = Selector::parse(class).unwrap();
                    answer.select(&selector).next().map(text).unwrap_or_default()
                };
                let unit = part(".unit");
                let unit = if unit.starts_with("on ") { format!(" {unit}") } else { String::new() };
                format!("{}{unit}", part(".figure"))
            })
            .collect();
        assert_eq!(shown, expected, "change {change}");
        // Other answers: AES costs system calls, and filters in user space cost more.
        for run in &mut results.runs {
            let Some(cycles) = &mut run.cycles else { continue };
            match run.column.as_str() {
                "aes-128-gcm" => cycles.system_call += 9000.0,
                "filter-10k-user" => cycles.user += 5000.0,
                _ => {}
            }
        }
    }
}

/// The answers expected here were computed by hand from the constants in synthetic/mod.rs.
#[test]
fn answers_name_the_cells_with_the_lowest_costs() {
    let (_folder, page, markdown) = report(&synthetic::results(Kind::Full));
    let figures = figures(&page);
    let [cheapest, aes, account, filter, cores] = figures.as_slice() else { panic!("{figures:?}") };
    assert_eq!(cheapest, "XDP_REDIRECT");
    // 540 cycles and 0.43 per byte at 1514 bytes: 1191, on a path of some 2600 ± 5 %.
    let cycles: f64 =
        aes.trim_start_matches('+').trim_end_matches(" cycles").replace(',', "").parse().unwrap();
    assert!((cycles - 1191.0).abs() < 150.0, "{aes}");
    assert!(account.starts_with("User space: +"), "{account}");
    assert_eq!(filter, "In the kernel");
    // 312 + 450 cycles with the filter in the kernel: the lowest total, on XDP_REDIRECT.
    assert!(markdown.contains("Lowest total: in the kernel on XDP_REDIRECT, 7"), "{markdown}");
    // 14.88 Mpps × (1723 + 566) cycles ÷ 2.1 GHz = 16.2.
    assert!(["16 cores", "17 cores"].contains(&cores.as_str()), "{cores}");
    for figure in &figures {
        assert!(markdown.contains(&format!("**{figure}**")), "{figure}");
    }
    assert!(markdown.contains("the application never sees the bytes"), "{markdown}");
    // The model predicts nothing for XDP_REDIRECT with AES, which cannot exist.
    let page = Html::parse_document(&page);
    let finding = text(select(&page, "#cores .finding")[0]);
    assert!(finding.contains("cores on AF_XDP, copy mode without security"), "{finding}");
}

#[test]
fn answers_follow_the_data() {
    let mut results = synthetic::results(Kind::Full);
    // With a cheaper AF_XDP and a dearer filter in user space, two answers change.
    for run in &mut results.runs {
        let Some(cycles) = &mut run.cycles else { continue };
        if run.row == "af_xdp-copy" {
            cycles.softirq *= 0.1;
            cycles.system_call *= 0.1;
        }
        if run.column == "filter-10k-user" {
            cycles.user += 5000.0;
        }
    }
    let (_folder, page, _) = report(&results);
    let figures = figures(&page);
    assert_eq!([&figures[0], &figures[3]], ["AF_XDP, copy mode", "In the kernel"]);
}

#[test]
fn model_of_linear_costs_predicts_held_out_cells() {
    let (_folder, page, _) = report(&synthetic::results(Kind::Full));
    let page = Html::parse_document(&page);
    let finding = text(select(&page, "#model .finding")[0]);
    let error: f64 = finding
        .split_once("cells: ")
        .and_then(|(_, rest)| rest.split_once(" %"))
        .and_then(|(number, _)| number.parse().ok())
        .unwrap_or_else(|| panic!("{finding}"));
    for kind in ["for other lengths", "for other combinations"] {
        assert!(finding.contains(kind), "{finding}");
    }
    // The synthetic costs are linear with noise of 5 %.
    assert!(error < 5.0 && error > 0.0, "{finding}");
}

#[test]
fn incomplete_results_give_a_page_that_says_what_is_unknown() {
    let (_folder, page, _) = report(&synthetic::results(Kind::WithoutCycles));
    assert!(figures(&page).iter().all(|figure| figure == "unknown"), "{:?}", figures(&page));
    assert!(page.contains("cycles were not sampled") || page.contains("no path"), "no reason");
    let (_folder, page, markdown) = report(&synthetic::results(Kind::Interrupted));
    for text in [&page, &markdown] {
        assert!(text.contains("The matrix is not complete."), "{text}");
    }
    let (_folder, page, _) = report(&synthetic::results(Kind::OneRow));
    assert_eq!(figures(&page)[0], "AF_XDP, copy mode");
}

#[test]
fn added_cost_within_the_spread_of_the_rounds_is_marked_as_unclear() {
    let unclear = |noise: f64| {
        let mut results = synthetic::results(Kind::Full);
        for run in &mut results.runs {
            let Some(cycles) = &mut run.cycles else { continue };
            cycles.user += noise * f64::from(run.round);
        }
        let (_folder, page, _) = report(&results);
        let page = Html::parse_document(&page);
        (select(&page, "#added .unclear a").len(), select(&page, "#added td a").len())
    };
    let (few, all) = unclear(0.0);
    assert!(few > 0 && few < all, "{few} of {all}");
    let (most, _) = unclear(1e6);
    assert_eq!(most, all);
}

#[test]
fn cost_that_chance_explains_is_not_attributed() {
    let mut results = synthetic::results(Kind::Full);
    for run in &mut results.runs {
        let Some(cycles) = &mut run.cycles else { continue };
        // One round of many cycles: the medians hardly change, but the intervals overlap.
        if run.column == "none" && run.round == 0 {
            cycles.softirq += 10_000.0;
        }
    }
    let (_folder, page, markdown) = report(&results);
    assert!(figures(&page)[1].starts_with('+'), "{:?}", figures(&page));
    assert_eq!(figures(&page)[2], "unclear");
    assert!(markdown.contains("that may be chance"), "{markdown}");
}

#[test]
fn report_of_network_interfaces_describes_them_and_no_virtual_cable() {
    use xdpfwd_bench::results::{NicPort, NicSetup};

    let mut results = synthetic::results(Kind::Quick);
    results.kind = "nic".to_owned();
    results.generator = Some("pktgen".to_owned());
    results.nic = Some(NicSetup {
        forwarder: "xdpfwd".to_owned(),
        generator_cores: vec![0],
        forwarder_cores: vec![2, 3],
        flows: 16,
        ports: vec![NicPort {
            role: "tx".to_owned(),
            interface: "enp59s0f0".to_owned(),
            driver: Some("ice".to_owned()),
            firmware: None,
            bus: None,
            pcie: None,
            speed_mbps: Some(25_000),
            mtu: 1500,
            numa_node: Some(1),
        }],
        link_mbps: Some(25_000),
        latency_allowed_loss: Some(0.005),
        missing_preparations: Vec::new(),
        notes: vec!["packet, none, 60 bytes: a remark".to_owned()],
    });
    let (_folder, page, markdown) = report(&results);
    for text in [&page, &markdown] {
        for expected in ["enp59s0f0", "pktgen", "a remark", "cores 2, 3"] {
            assert!(text.contains(expected), "no {expected}: {text}");
        }
        for unexpected in ["veth pairs", "virtual cable", "copy mode or in", "runs.csv"] {
            assert!(!text.contains(unexpected), "{unexpected}: {text}");
        }
    }
}

#[test]
fn cells_that_were_not_tried_again_and_few_samples_are_marked() {
    let mut results = synthetic::results(Kind::Quick);
    let is_removed = |row: &str, column: &str| row == "packet" && column == "aes-128-gcm";
    results.runs.retain(|run| !is_removed(&run.row, &run.column));
    results.given_up.push(xdpfwd_bench::results::GivenUp {
        row: "packet".to_owned(),
        column: Some("aes-128-gcm".to_owned()),
        size: "60".to_owned(),
    });
    let cycles = results.runs.iter_mut().find_map(|run| run.cycles.as_mut()).unwrap();
    cycles.samples = 99;
    let (_folder, page, markdown) = report(&results);
    let page = Html::parse_document(&page);
    let titles: Vec<&str> = select(&page, ".matrix td.failed")
        .into_iter()
        .map(|cell| attribute(cell, "title"))
        .collect();
    assert_eq!(titles, ["failed: not tried again"]);
    assert_eq!(select(&page, ".matrix .few").len(), 1);
    assert!(markdown.contains("fewer than 100 samples"), "{markdown}");
}

#[test]
fn text_of_the_results_is_escaped() {
    let mut results = synthetic::results(Kind::Quick);
    results.rows[0].title = "<script>alert(1)</script>".to_owned();
    results.runs[0].command = "</pre><img src=x onerror=alert(1)>|".to_owned();
    let (_folder, page, markdown) = report(&results);
    let page = Html::parse_document(&page);
    assert_eq!(select(&page, "script").len(), 1);
    assert!(select(&page, "img").is_empty());
    assert!(!markdown.contains("<script>") && markdown.contains("&lt;script&gt;"), "{markdown}");
}

#[test]
fn report_without_valid_results_names_the_file_and_the_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("matrix.json");
    let error = || {
        let output = run(folder.path());
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(!folder.path().join("report.html").exists());
        String::from_utf8(output.stderr).unwrap()
    };
    let shown = file.display().to_string();
    let text = error();
    assert!(text.contains(&format!("cannot read `{shown}`")), "{text}");
    assert!(text.contains("xdpfwd-bench matrix"), "{text}");
    std::fs::write(&file, "[]").unwrap();
    let text = error();
    assert!(text.contains(&format!("`{shown}` is not a matrix")), "{text}");
    let mut results = synthetic::results(Kind::Quick);
    results.schema = 7;
    synthetic::write(folder.path(), &results);
    let text = error();
    assert!(text.contains("schema is 7") && text.contains("reads schema 1"), "{text}");
    results.schema = 1;
    results.runs[0].row = "unheard-of".to_owned();
    synthetic::write(folder.path(), &results);
    let text = error();
    assert!(text.contains("unknown row \"unheard-of\""), "{text}");
    results.runs.clear();
    synthetic::write(folder.path(), &results);
    let text = error();
    assert!(text.contains("contains no run") && text.contains("make matrix"), "{text}");
}

#[test]
fn output_option_leaves_the_results_unchanged() {
    let folder = tempfile::tempdir().unwrap();
    synthetic::write(folder.path(), &synthetic::results(Kind::OneRow));
    let output = folder.path().join("new/folder");
    let status = Command::new(env!("CARGO_BIN_EXE_xdpfwd-bench"))
        .arg("report")
        .arg(folder.path())
        .arg("--output")
        .arg(&output)
        .output()
        .unwrap()
        .status;
    assert!(status.success());
    assert!(output.join("report.html").exists() && output.join("report.md").exists());
    assert!(!folder.path().join("report.html").exists());
}
