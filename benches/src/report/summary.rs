//! The summary at the top of the report: answers, and the findings in sentences.

use super::answers::{self, Answer};
use super::columns;
use super::data::Data;
use super::format::{count, join, percent, short};
use super::model::Model;

/// Answers, and the same in sentences. `**` marks emphasis.
pub(super) struct Summary {
    pub(super) answers: Vec<Answer>,
    pub(super) sentences: Vec<String>,
}

impl Summary {
    pub(super) fn new(data: &Data, model: Option<&Model>) -> Self {
        let mut summary = Self { answers: Vec::new(), sentences: Vec::new() };
        for (answer, sentence) in answers::all(data, model) {
            summary.answers.push(answer);
            summary.sentences.extend(sentence);
        }
        summary.sentences.extend(range_of_paths(data));
        summary.sentences.extend(model.and_then(|model| accuracy(data, model)));
        summary
    }
}

/// Compares the choice of the path with that of encryption.
fn range_of_paths(data: &Data) -> Option<String> {
    let size = data.smallest_size();
    let none = columns::none(data.columns())?;
    let costs: Vec<(usize, f64)> = (0..data.rows().len())
        .filter(|&row| data.rows()[row].place == "user")
        .filter_map(|row| Some((row, data.cycles(row, none, size)?)))
        .collect();
    let least = costs.iter().min_by(|a, b| a.1.total_cmp(&b.1))?;
    let most = costs.iter().max_by(|a, b| a.1.total_cmp(&b.1))?;
    if costs.len() < 2 {
        return None;
    }
    let aes = columns::aes(data.columns())?;
    let with_aes = data.cycles(least.0, aes, size)?;
    let (path_factor, aes_factor) = (most.1 / least.1, with_aes / least.1);
    let comparison = if path_factor > aes_factor { "more than" } else { "less than" };
    let cheapest = &data.rows()[least.0].title;
    Some(format!(
        "Through user space at {}, the choice of the path matters {comparison} encryption: the \
         cycles per packet of {} are {} times those of {cheapest}; {} multiplies the cycles of \
         {cheapest} by {}.",
        data.size_name(size),
        data.rows()[most.0].title,
        short(path_factor),
        data.columns()[aes].title,
        short(aes_factor),
    ))
}

fn accuracy(data: &Data, model: &Model) -> Option<String> {
    let errors: Vec<String> = model
        .errors()
        .iter()
        .map(|error| {
            format!(
                "**{}** for {} (largest: {}; {})",
                percent(error.median),
                error.kind.name(),
                percent(error.largest),
                count(error.cells, "cell")
            )
        })
        .collect();
    if errors.is_empty() {
        return None;
    }
    let mut text = format!(
        "A model of path plus stage predicts cells that it was not fitted to; its median error is \
         {}.",
        join(&errors)
    );
    if let Some(width) = data.typical_width() {
        text += &format!(
            " The interval of half of all cells is narrower than {} of their cycles.",
            percent(width)
        );
    }
    Some(text)
}
