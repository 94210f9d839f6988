//! The answers at the top of the report, computed from the results.

use super::columns::{self, Placement};
use super::data::{Account, Cell, Data, Key, State};
use super::format::{count, integer, mpps, percent, short, signed};
use super::line_rate::{LINE_RATES, cores, packets_per_second};
use super::model::Model;

/// An answer as a large figure.
pub(super) struct Answer {
    pub(super) question: String,
    pub(super) figure: String,
    /// What belongs to the figure, in somewhat smaller letters.
    pub(super) unit: String,
    pub(super) detail: String,
    /// Cycles by account, drawn as a bar.
    pub(super) accounts: Option<[f64; 3]>,
    /// The cell that the figure comes from.
    pub(super) key: Option<Key>,
}

/// Answers, and the same in sentences. `**` marks emphasis.
pub(super) struct Summary {
    pub(super) answers: Vec<Answer>,
    pub(super) sentences: Vec<String>,
}

impl Summary {
    pub(super) fn new(data: &Data, model: Option<&Model>) -> Self {
        let mut summary = Self { answers: Vec::new(), sentences: Vec::new() };
        let context = Context { data, model };
        for (answer, sentence) in [
            context.cheapest(),
            context.added_by_aes(),
            context.payer(),
            context.filter(),
            context.cores(),
        ] {
            summary.answers.push(answer);
            summary.sentences.extend(sentence);
        }
        summary.sentences.extend(context.range_of_paths());
        summary.sentences.extend(context.accuracy());
        summary
    }
}

type Answered = (Answer, Option<String>);

struct Context<'a> {
    data: &'a Data,
    model: Option<&'a Model>,
}

impl Context<'_> {
    fn title(&self, cell: &Cell) -> &str {
        &self.data.rows()[cell.key.row].title
    }

    fn column_title(&self, column: usize) -> &str {
        &self.data.columns()[column].title
    }

    /// Returns the cheapest cell without processing at a size.
    fn cheapest_at(&self, size: usize) -> Option<&Cell> {
        self.data.cheapest(|_| true, &[columns::none(self.data.columns())?], size)
    }

    fn cheapest(&self) -> Answered {
        let size = self.data.smallest_size();
        let size_name = self.data.size_name(size);
        let question = "Which path is cheapest without security?".to_owned();
        let Some((cell, cycles)) = self.cheapest_at(size).and_then(with_cycles) else {
            return unknown(
                question,
                format!("no path without security has cycles at {size_name}"),
            );
        };
        let title = self.title(cell);
        let rate = mpps(cell.mpps.median);
        let figures = format!(
            "{} cycles per packet at {size_name}, {rate} Mpps with one forwarding core",
            integer(cycles)
        );
        let mut sentence =
            format!("Without security, **{title}** is the cheapest path: **{figures}**");
        let in_user_space = columns::none(self.data.columns())
            .and_then(|none| self.data.cheapest(|row| row.place == "user", &[none], size))
            .filter(|user| user.key.row != cell.key.row)
            .and_then(with_cycles);
        let mut detail = format!("At {size_name}, {rate} Mpps with one forwarding core");
        if let Some((user, cycles)) = in_user_space {
            let user = format!("{} ({} cycles)", self.title(user), integer(cycles));
            sentence += &format!("; of the paths through user space, it is **{user}**");
            detail += &format!(". Through user space: {user}");
        }
        let answer = Answer {
            question,
            figure: title.to_owned(),
            unit: format!("{} cycles per packet", integer(cycles)),
            detail: detail + ".",
            accounts: None,
            key: Some(cell.key),
        };
        (answer, Some(sentence + "."))
    }

    /// Returns the cell that AES is judged by at a size: of the paths on which AES ran at this size,
    /// the one that is cheapest without security.
    fn cell_with_aes(&self, aes: usize, size: usize) -> Option<&Cell> {
        self.data
            .rows_by_cost(self.data.smallest_size())
            .into_iter()
            .filter_map(|row| self.data.cell(row, aes, size))
            .find(|cell| cell.cycles.is_some())
    }

    /// Returns why the cheapest path has no AES, if it has none.
    fn no_aes_on_cheapest(&self, aes: usize, size: usize) -> Option<String> {
        let cheapest = self.cheapest_at(self.data.smallest_size())?;
        let key = Key { column: aes, size, ..cheapest.key };
        let reason = match self.data.state(key) {
            State::Measured(_) => return None,
            State::Unavailable(reason) => format!("n/a, {reason}"),
            State::Failed(error) => format!("failed, {error}"),
            State::NotRun => "not run".to_owned(),
        };
        Some(format!("On {}: {reason}", self.title(cheapest)))
    }

    fn added_by_aes(&self) -> Answered {
        let size = self.data.largest_size();
        let size_name = self.data.size_name(size);
        let Some(aes) = columns::aes(self.data.columns()) else {
            return unknown(
                "What does AES add there?".to_owned(),
                "the matrix has no column with AES".to_owned(),
            );
        };
        let question = format!("What does AES add there at {size_name}?");
        let cell = self.cell_with_aes(aes, size);
        let Some((cell, added, (_, cycles))) =
            cell.and_then(|cell| Some((cell, self.data.added(cell.key)?, with_cycles(cell)?)))
        else {
            return unknown(question, "no path has cycles with and without AES".to_owned());
        };
        let before = cycles - added.total;
        let share = percent((added.total / before).abs());
        let relative = format!("{share} {}", if added.total < 0.0 { "less" } else { "more" });
        let mut detail = format!(
            "{}: {} → {} cycles per packet, {}",
            self.column_title(aes),
            integer(before),
            integer(cycles),
            relative
        );
        let mut sentence = format!(
            "{} adds **{} cycles per packet at {size_name}** on {}: {} instead of {} ({})",
            self.column_title(aes),
            integer(added.total),
            self.title(cell),
            integer(cycles),
            integer(before),
            relative
        );
        if !added.is_distinct {
            sentence += "; that may be chance";
            detail += "; that may be chance";
        }
        if let Some(reason) = self.no_aes_on_cheapest(aes, size) {
            sentence += &format!(". {reason}");
            detail += &format!(". {reason}");
        }
        let answer = Answer {
            question,
            figure: format!("{} cycles", signed(added.total)),
            unit: format!("on {}", self.title(cell)),
            detail: detail + ".",
            accounts: None,
            key: Some(cell.key),
        };
        (answer, Some(sentence + "."))
    }

    fn payer(&self) -> Answered {
        let question = "Who pays for it?".to_owned();
        let size = self.data.largest_size();
        let added = columns::aes(self.data.columns())
            .and_then(|aes| self.cell_with_aes(aes, size))
            .and_then(|cell| Some((cell.key, self.data.added(cell.key)?)));
        let Some((key, added)) = added else {
            return unknown(question, "no path has cycles with and without AES".to_owned());
        };
        if added.total <= 0.0 {
            return unknown(question, "AES costs less than the rounds vary".to_owned());
        }
        let positive: f64 = added.accounts.iter().map(|cycles| cycles.max(0.0)).sum();
        let (account, most) = Account::ALL
            .into_iter()
            .zip(added.accounts)
            .max_by(|a, b| a.1.total_cmp(&b.1))
            .unwrap_or((Account::User, 0.0));
        let parts: Vec<String> = Account::ALL
            .into_iter()
            .zip(added.accounts)
            .map(|(account, cycles)| format!("{} {}", account.name(), signed(cycles)))
            .collect();
        let doubt = if added.is_distinct { "" } else { "; that may be chance" };
        let (parts, share) = (parts.join(", ") + doubt, percent(most / positive));
        let sentence = format!(
            "**{} {} {share}** of the added cycles ({parts}).",
            pays(account).0,
            pays(account).1
        );
        let answer = Answer {
            question,
            figure: format!("{}: {share}", pays(account).0),
            unit: String::new(),
            detail: format!("Cycles that AES adds: {parts}."),
            accounts: Some(added.accounts),
            key: Some(key),
        };
        (answer, Some(sentence))
    }

    fn filter(&self) -> Answered {
        let size = self.data.smallest_size();
        let size_name = self.data.size_name(size);
        let Some((rules, filters)) = columns::largest_filter(self.data.columns()) else {
            return unknown(
                "Where is a filter cheapest?".to_owned(),
                "the matrix has no column with a filter".to_owned(),
            );
        };
        let rules = count(rules as usize, "rule");
        let question = format!("Where is a filter of {rules} cheapest?");
        let cheapest = self.data.cheapest(|_| true, &filters, size).and_then(with_cycles);
        let Some((cell, cycles)) = cheapest else {
            return unknown(
                question,
                format!("no cell with this filter has cycles at {size_name}"),
            );
        };
        let placement = columns::placement(&self.data.columns()[cell.key.column]);
        let place = placement.map_or("", Placement::name);
        let added = self.data.added(cell.key).map_or_else(String::new, |added| {
            let doubt = if added.is_distinct { "" } else { " (which may be chance)" };
            format!(", {} over no filter{doubt}", signed(added.total))
        });
        let figures = format!("{} cycles per packet at {size_name}{added}", integer(cycles));
        let other = filters
            .iter()
            .filter(|&&column| column != cell.key.column)
            .find_map(|&column| with_cycles(self.data.cell(cell.key.row, column, size)?))
            .map(|(other, cycles)| {
                let place = columns::placement(&self.data.columns()[other.key.column])
                    .map_or("the other placement", Placement::name);
                format!("; in {place} on the same path, {} cycles", integer(cycles))
            })
            .unwrap_or_default();
        let title = self.title(cell);
        let sentence = format!(
            "A filter of {rules} is cheapest **in {place} on {title}**: **{figures}**{other}."
        );
        let answer = Answer {
            question,
            figure: format!("In {place}"),
            unit: format!("on {title}: {} cycles per packet", integer(cycles)),
            detail: format!("At {size_name}{added}{other}."),
            accounts: None,
            key: Some(cell.key),
        };
        (answer, Some(sentence))
    }

    fn cores(&self) -> Answered {
        let size = self.data.smallest_size();
        let (rate_name, bits) = LINE_RATES[0];
        let size_name = self.data.size_name(size);
        let question = format!("How many cores for {rate_name} at {size_name} with AES?");
        let aes = columns::aes(self.data.columns());
        let cell = aes.and_then(|aes| self.cell_with_aes(aes, size)).and_then(with_cycles);
        let (Some((cell, cycles)), Some(aes)) = (cell, aes) else {
            return unknown(question, format!("no path has cycles with AES at {size_name}"));
        };
        let (bytes, tsc_hz) = (self.data.bytes(size), self.data.results.tsc_hz);
        let pps = packets_per_second(bits, bytes);
        let needed = cores(pps, cycles, tsc_hz);
        let mut others = Vec::new();
        if let Some(without) = columns::none(self.data.columns())
            .and_then(|none| self.data.cycles(cell.key.row, none, size))
        {
            others.push(format!("without security: {}", short(cores(pps, without, tsc_hz))));
        }
        if let Some(cycles) = self.model.and_then(|model| model.predict(cell.key.row, aes, bytes)) {
            others.push(format!("by the model: {}", short(cores(pps, cycles, tsc_hz))));
        }
        let others =
            if others.is_empty() { String::new() } else { format!("; {}", others.join(", ")) };
        let title = self.title(cell);
        let product = format!(
            "{:.2} Mpps × {} cycles ÷ {:.2} GHz = {}",
            pps / 1e6,
            integer(cycles),
            tsc_hz / 1e9,
            short(needed)
        );
        let sentence = format!(
            "{rate_name} at {size_name} with {} needs **{} on {title}** ({product}{others}), if \
             cores and queues scale perfectly.",
            self.column_title(aes),
            count(needed.ceil() as usize, "core"),
        );
        let answer = Answer {
            question,
            figure: count(needed.ceil() as usize, "core"),
            unit: format!("on {title}"),
            detail: format!("{product}{others}. Assumes perfect scaling."),
            accounts: None,
            key: Some(cell.key),
        };
        (answer, Some(sentence))
    }

    /// Compares the choice of the path with that of encryption.
    fn range_of_paths(&self) -> Option<String> {
        let size = self.data.smallest_size();
        let none = columns::none(self.data.columns())?;
        let costs: Vec<(usize, f64)> = (0..self.data.rows().len())
            .filter(|&row| self.data.rows()[row].place == "user")
            .filter_map(|row| Some((row, self.data.cycles(row, none, size)?)))
            .collect();
        let least = costs.iter().min_by(|a, b| a.1.total_cmp(&b.1))?;
        let most = costs.iter().max_by(|a, b| a.1.total_cmp(&b.1))?;
        if costs.len() < 2 {
            return None;
        }
        let aes = columns::aes(self.data.columns())?;
        let with_aes = self.data.cycles(least.0, aes, size)?;
        let (path_factor, aes_factor) = (most.1 / least.1, with_aes / least.1);
        let comparison = if path_factor > aes_factor { "more than" } else { "less than" };
        Some(format!(
            "Through user space at {}, the choice of the path matters {comparison} encryption: {} \
             costs {} times as many cycles as {}, where {} costs {} times as many as nothing.",
            self.data.size_name(size),
            self.data.rows()[most.0].title,
            short(path_factor),
            self.data.rows()[least.0].title,
            self.column_title(aes),
            short(aes_factor),
        ))
    }

    fn accuracy(&self) -> Option<String> {
        let model = self.model?;
        let (median, largest) = (model.median_error()?, model.checks.last()?);
        Some(format!(
            "A model of path plus stage predicts {} that it was not fitted to with a median error \
             of **{}** (largest: {}). The interval of half of all cells is narrower than {} of \
             their cycles.",
            count(model.checks.len(), "cell"),
            percent(median),
            percent(largest.error()),
            percent(self.data.typical_width()?)
        ))
    }
}

fn with_cycles(cell: &Cell) -> Option<(&Cell, f64)> {
    Some((cell, cell.cycles.as_ref()?.total.median))
}

/// Returns an account at the start of a sentence, and the verb.
fn pays(account: Account) -> (&'static str, &'static str) {
    match account {
        Account::User => ("User space", "pays"),
        Account::SystemCall => ("System calls", "pay"),
        Account::Softirq => ("Softirqs", "pay"),
    }
}

fn unknown(question: String, reason: String) -> Answered {
    let answer = Answer {
        question,
        figure: "unknown".to_owned(),
        unit: String::new(),
        detail: format!("These results do not tell: {reason}."),
        accounts: None,
        key: None,
    };
    (answer, None)
}
