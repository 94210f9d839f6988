//! Renders reports in headless Chromium: both themes, as wide as a phone and as a laptop.
//!
//! The screenshots stay in target/tmp/report, to be looked at.

mod synthetic;

use std::path::Path;
use std::process::Command;

use serde_json::Value;
use synthetic::Kind;

const VIEWS: [(u32, &str); 4] = [(390, "light"), (390, "dark"), (1400, "light"), (1400, "dark")];

/// Returns what Chromium observes in each view of a page. Writes screenshots to a folder.
fn observe(page: &Path, screenshots: &Path) -> Vec<Value> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/chromium.py");
    let mut command = Command::new("python3");
    command.args([Path::new(script), page, screenshots]);
    command.args(VIEWS.map(|(width, theme)| format!("{width}:{theme}")));
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{}\nThis test needs chromium and python3: run `make test-long`.",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Returns the output of a program of poppler-utils.
fn poppler(program: &str, arguments: &[&Path]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}; run `make test-long`"));
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn assert_print_has_all_but_the_raw_values(folder: &Path) {
    let pdf = folder.join("print.pdf");
    let text = poppler("pdftotext", &[&pdf, Path::new("-")]);
    // The fitted costs are in a part that is closed on the screen.
    for expected in ["What security costs on every packet path", "Fitted costs", "path: AF_XDP"] {
        assert!(text.contains(expected), "no {expected:?} in {}", pdf.display());
    }
    assert!(!text.contains("paced offered"), "raw values in {}", pdf.display());
    let information = poppler("pdfinfo", &[&pdf]);
    let pages: u32 = information
        .lines()
        .find_map(|line| line.strip_prefix("Pages:")?.trim().parse().ok())
        .unwrap_or_else(|| panic!("{information}"));
    // The raw values alone would take more.
    assert!((2..100).contains(&pages), "{pages} pages");
}

fn is_empty(value: &Value) -> bool {
    value.as_array().unwrap_or_else(|| panic!("no list: {value}")).is_empty()
}

/// Returns the contrast of text to its background, as WCAG 2 defines it, from `rgb(r, g, b)`.
fn contrast(observed: &Value) -> f64 {
    let luminance = |color: &Value| {
        let numbers: Vec<f64> = color
            .as_str()
            .unwrap()
            .split(|c: char| !c.is_ascii_digit())
            .filter_map(|number| number.parse::<f64>().ok())
            .map(|channel| ((channel / 255.0 + 0.055) / 1.055).powf(2.4))
            .collect();
        0.2126 * numbers[0] + 0.7152 * numbers[1] + 0.0722 * numbers[2]
    };
    let (text, page) = (luminance(&observed["color"]), luminance(&observed["background"]));
    (text.max(page) + 0.05) / (text.min(page) + 0.05)
}

#[test]
#[ignore = "long: make test-long"]
fn report_in_chromium_fits_every_view_and_loads_nothing() {
    for kind in [Kind::Full, Kind::Quick, Kind::OneRow] {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("report/{kind:?}"));
        synthetic::write(&folder, &synthetic::results(kind));
        let status = Command::new(env!("CARGO_BIN_EXE_xdpfwd-bench"))
            .arg("report")
            .arg(&folder)
            .status()
            .unwrap();
        assert!(status.success());
        let page = folder.join("report.html");
        let views = observe(&page, &folder);
        assert_eq!(views.len(), VIEWS.len());
        let background = |view: usize, state: &str| &views[view][state]["background"];
        for ((width, theme), view) in VIEWS.iter().zip(&views) {
            let context = format!("{kind:?}, {width}, {theme}");
            assert!(is_empty(&view["messages"]), "{context}: {}", view["messages"]);
            let page = format!("file://{}", page.display());
            assert_eq!(view["requests"], serde_json::json!([page]), "{context}");
            for state in ["page", "toggled", "opened"] {
                let observed = &view[state];
                assert_eq!(observed["scrollWidth"], *width, "{context}, {state}");
                assert!(is_empty(&observed["outside"]), "{context}: {}", observed["outside"]);
                assert!(is_empty(&observed["small"]), "{context}: {}", observed["small"]);
                assert!(contrast(observed) > 7.0, "{context}: {observed}");
            }
            let screenshot = folder.join(format!("{width}-{theme}.png"));
            assert!(screenshot.metadata().unwrap().len() > 20_000, "{context}");
        }
        assert_ne!(background(0, "page"), background(1, "page"), "{kind:?}: one theme");
        assert_eq!(background(0, "toggled"), background(1, "page"), "{kind:?}: the button");
        assert_eq!(background(1, "toggled"), background(0, "page"), "{kind:?}: the button");
        assert_print_has_all_but_the_raw_values(&folder);
    }
}

#[test]
#[ignore = "long: make test-long"]
fn defects_of_a_page_are_observed() {
    let folder = tempfile::tempdir().unwrap();
    let page = folder.path().join("page.html");
    let text = "<!DOCTYPE html><meta name=viewport content='width=device-width'>\
        <button id=theme>x</button><div style='width: 2000px'>wide</div>\
        <svg width=20 height=5 viewBox='0 0 400 100'><text y=20>small</text></svg>\
        <script src='missing.js'></script><script>console.error('broken')</script>";
    std::fs::write(&page, text).unwrap();
    for view in observe(&page, folder.path()) {
        assert!(view["messages"].to_string().contains("broken"), "{view}");
        assert!(view["requests"].to_string().contains("missing.js"), "{view}");
        assert!(view["page"]["outside"].to_string().contains("wide"), "{view}");
        assert!(view["page"]["small"].to_string().contains("small"), "{view}");
    }
}
