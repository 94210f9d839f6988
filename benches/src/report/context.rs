//! What every section of the report uses.

use maud::Markup;

use super::data::Data;
use super::model::Model;
use super::summary::Summary;

/// Results, their model, and the answers computed from both.
pub(super) struct Report {
    pub(super) data: Data,
    pub(super) model: Option<Model>,
    pub(super) summary: Summary,
}

impl Report {
    pub(super) fn new(data: Data) -> Self {
        let model = Model::fit(&data);
        let summary = Summary::new(&data, model.as_ref());
        Self { data, model, summary }
    }
}

/// A section of the page and of the Markdown summary.
pub(super) struct Section {
    /// Address on the page.
    pub(super) id: &'static str,
    pub(super) title: &'static str,
    /// Returns the content, without the title; `None` if the results have nothing for it.
    pub(super) html: fn(&Report) -> Option<Markup>,
    /// As `html`; `None` also for sections that only repeat others as charts.
    pub(super) markdown: fn(&Report) -> Option<String>,
}
