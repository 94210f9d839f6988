//! No-drop rates, and latencies at shares of them.

use maud::{Markup, html};
use xdpfwd_bench::results::Rate;

use super::super::context::{Report, Section};
use super::super::data::Data;
use super::super::format::{integer, microseconds, mpps, percent};
use super::super::widgets;

pub(super) const SECTION: Section =
    Section { id: "rates", title: "No-drop rates and latency", html: content, markdown: text };

fn content(report: &Report) -> Option<Markup> {
    let data = &report.data;
    let (rates, latencies) = (rates(data), latencies(data));
    if rates.is_empty() && latencies.is_empty() {
        return None;
    }
    let finding = finding(data);
    Some(html! {
        @if let Some(finding) = finding { p.finding { (finding) } }
        @if !rates.is_empty() {
            h3 { "Highest rates within a loss" }
            (widgets::table(&rate_headings(), &widgets::cells(&rates)))
            p.note {
                "The highest rate of a trial that lost at most this share, and the lowest rate of a "
                "trial that lost more. The true limit is between them. \"none\": every trial lost more. "
                "\"~\": the search ended before both were close to each other."
            }
        }
        @if !latencies.is_empty() {
            h3 { "Latency at shares of the " (latency_rate(data)) }
            (widgets::table(&latency_headings(), &widgets::cells(&latencies)))
            p.note { "From the generator to the sink, in microseconds, of all packets." }
        }
    })
}

/// Returns which rate the loads of the latencies are shares of.
fn latency_rate(data: &Data) -> String {
    let goal = data.results.nic.as_ref().and_then(|nic| nic.latency_allowed_loss);
    match goal.filter(|share| *share > 0.0) {
        None => "no-drop rate".to_owned(),
        Some(share) => format!("rate with at most {} lost", loss(share)),
    }
}

fn finding(data: &Data) -> Option<String> {
    let size = &data.sizes().get(data.smallest_size())?.name;
    let size_name = data.size_name(data.smallest_size());
    let mut text = String::new();
    let no_drop =
        data.results.rates.iter().filter(|rate| rate.allowed_loss == 0.0 && rate.pps > 0.0);
    if let Some(best) =
        no_drop.filter(|rate| rate.size == *size).max_by(|a, b| a.pps.total_cmp(&b.pps))
    {
        text = format!(
            "The highest no-drop rate at {size_name} is {} Mpps ({}).",
            rate(best),
            data.combination(&best.row, &best.column)
        );
    }
    let half = data.results.latencies.iter().filter(|latency| latency.load == 0.5);
    if let Some(best) =
        half.filter(|l| l.size == *size).min_by(|a, b| a.p50_ns.total_cmp(&b.p50_ns))
    {
        text += &format!(
            " At half of its {}, {} has the lowest median latency: {} µs.",
            latency_rate(data),
            data.combination(&best.row, &best.column),
            microseconds(best.p50_ns)
        );
    }
    (!text.is_empty()).then(|| text.trim_start().to_owned())
}

/// Returns a share of lost packets with all its digits: shares may be as small as 10⁻⁶.
fn loss(share: f64) -> String {
    if share == 0.0 {
        return "none".to_owned();
    }
    // Rounded to 13 decimals, because multiplication by 100 is inexact.
    let text = format!("{:.13}", share * 100.0);
    format!("{} %", text.trim_end_matches('0').trim_end_matches('.'))
}

/// Returns the share of packets that a trial lost.
fn loss_of_trial(share: f64) -> String {
    match share {
        // A trial can receive packets that were sent before it.
        share if share <= 0.0 => "none".to_owned(),
        share if share < 0.0001 => "< 0.01 %".to_owned(),
        share => format!("{:.2} %", 100.0 * share),
    }
}

/// Returns the rate of a search in Mpps.
fn rate(rate: &Rate) -> String {
    match rate.upper_pps {
        _ if rate.pps <= 0.0 => "none".to_owned(),
        None => format!("≥ {} (limit of the generator)", mpps(rate.pps / 1e6)),
        Some(_) if !rate.is_complete => format!("~{}", mpps(rate.pps / 1e6)),
        Some(_) => mpps(rate.pps / 1e6),
    }
}

fn rate_headings() -> Vec<String> {
    ["path", "security", "frames", "allowed loss", "Mpps", "loses more at Mpps", "trials"]
        .map(str::to_owned)
        .to_vec()
}

fn rates(data: &Data) -> Vec<Vec<String>> {
    data.results
        .rates
        .iter()
        .map(|found| {
            vec![
                data.row_title(&found.row).to_owned(),
                data.column_title(&found.column).to_owned(),
                found.size.clone(),
                loss(found.allowed_loss),
                rate(found),
                found.upper_pps.map_or_else(|| "–".to_owned(), |pps| mpps(pps / 1e6)),
                integer(f64::from(found.trials)),
            ]
        })
        .collect()
}

fn latency_headings() -> Vec<String> {
    ["path", "security", "frames", "load", "Mpps", "lost", "p50 µs", "p99 µs", "p99.9 µs", "max µs"]
        .map(str::to_owned)
        .to_vec()
}

fn latencies(data: &Data) -> Vec<Vec<String>> {
    data.results
        .latencies
        .iter()
        .map(|latency| {
            vec![
                data.row_title(&latency.row).to_owned(),
                data.column_title(&latency.column).to_owned(),
                latency.size.clone(),
                percent(latency.load),
                mpps(latency.offered_pps / 1e6),
                latency.loss.map_or_else(|| "–".to_owned(), loss_of_trial),
                microseconds(latency.p50_ns),
                microseconds(latency.p99_ns),
                microseconds(latency.p999_ns),
                microseconds(latency.max_ns),
            ]
        })
        .collect()
}

fn text(report: &Report) -> Option<String> {
    let data = &report.data;
    let (rates, latencies) = (rates(data), latencies(data));
    if rates.is_empty() && latencies.is_empty() {
        return None;
    }
    let mut text = finding(data).map(|finding| format!("{finding}\n")).unwrap_or_default();
    if !rates.is_empty() {
        text += &format!("\n{}", widgets::markdown_table(&rate_headings(), &rates));
    }
    if !latencies.is_empty() {
        text += &format!("\n{}", widgets::markdown_table(&latency_headings(), &latencies));
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loss_keeps_the_digits_of_small_shares() {
        let texts = [0.0, 0.005, 1e-6, 0.00007, 0.5].map(loss);
        assert_eq!(texts, ["none", "0.5 %", "0.0001 %", "0.007 %", "50 %"]);
    }

    #[test]
    fn rate_without_upper_bound_is_the_limit_of_the_generator() {
        let found = |pps: f64, upper_pps| Rate {
            row: String::new(),
            column: String::new(),
            size: String::new(),
            allowed_loss: 0.0,
            pps,
            upper_pps,
            trials: 1,
            is_complete: true,
        };
        assert_eq!(rate(&found(1e6, Some(1.1e6))), "1.000");
        assert_eq!(rate(&found(1e6, None)), "≥ 1.000 (limit of the generator)");
        assert_eq!(rate(&found(0.0, Some(1000.0))), "none");
        let ended_early = Rate { is_complete: false, ..found(1e6, Some(1.1e6)) };
        assert_eq!(rate(&ended_early), "~1.000");
    }

    #[test]
    fn loss_of_trial_is_never_rounded_to_none() {
        assert_eq!(loss_of_trial(-0.001), "none");
        assert_eq!(loss_of_trial(1e-6), "< 0.01 %");
        assert_eq!(loss_of_trial(0.0123), "1.23 %");
    }
}
