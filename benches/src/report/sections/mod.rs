//! Sections of the report. To add one, write a file and add it to [`SECTIONS`].

mod accounts;
mod added;
mod cores;
mod matrix;
mod model;
mod provenance;
mod published;
mod rates;
mod raw;
mod rules;
mod sizes;
mod summary;
mod throughput;

pub(super) use summary::{html as summary_html, markdown as summary_markdown};

use super::context::Section;

/// All sections after the summary, in the order of the page.
pub(super) const SECTIONS: &[Section] = &[
    matrix::SECTION,
    accounts::SECTION,
    added::SECTION,
    sizes::SECTION,
    rules::SECTION,
    throughput::SECTION,
    cores::SECTION,
    model::SECTION,
    rates::SECTION,
    published::SECTION,
    provenance::SECTION,
    raw::SECTION,
];
