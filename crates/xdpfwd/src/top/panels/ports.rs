use super::super::format::si;
use super::super::model::{Model, PortRates};
use super::super::panel::{Cell, Column, ColumnKind, Panel};
use super::super::snapshot::Port;
use super::super::theme::Tone;

/// Returns the panel of the ports' rates.
pub(crate) fn ports(model: &Model) -> Panel {
    let text = |head, min, rank| Column { head, kind: ColumnKind::Text { min }, rank };
    Panel {
        title: "Ports".to_owned(),
        remark: "per second".to_owned(),
        columns: vec![
            text("port", 6, 0),
            text("interface", 8, 4),
            text("link", 6, 3),
            text("mode", 4, 6),
            Column::number("in pkt", 0),
            Column::number("in bit", 2),
            Column::rest("in, last 60 s", 13, 5),
            Column::number("peak", 8),
            Column::number("out pkt", 0),
            Column::number("out bit", 2),
            Column::rest("out, last 60 s", 14, 7),
            Column::number("peak", 8),
            Column::number("to kernel", 9),
        ],
        rows: model.snapshot.ports.iter().zip(&model.ports).map(row).collect(),
        empty: "no ports".to_owned(),
        ..Panel::default()
    }
}

fn row((port, rates): (&Port, &PortRates)) -> Vec<Cell> {
    let link = port.link.as_deref().unwrap_or("-");
    let tone = if matches!(link, "up" | "unknown" | "-") { Tone::Normal } else { Tone::Bad };
    let number = |number: Option<f64>| number.map_or("-".to_owned(), si);
    vec![
        Cell::new(&*port.name, Tone::Strong),
        (&*port.interface).into(),
        Cell::new(link, tone),
        (&*port.mode).into(),
        Cell::new(number(rates.now.map(|rates| rates.rx_packets)), Tone::Strong),
        number(rates.now.map(|rates| rates.rx_bits)).into(),
        Cell::spark(&rates.rx_history),
        Cell::new(number(rates.now.map(|_| rates.rx_history.peak())), Tone::Faint),
        Cell::new(number(rates.now.map(|rates| rates.tx_packets)), Tone::Strong),
        number(rates.now.map(|rates| rates.tx_bits)).into(),
        Cell::spark(&rates.tx_history),
        Cell::new(number(rates.now.map(|_| rates.tx_history.peak())), Tone::Faint),
        number(rates.now.map(|rates| rates.to_kernel)).into(),
    ]
}
