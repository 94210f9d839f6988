//! Answers to the five questions at the top of the report, computed from the results.

use super::columns::{self, Placement};
use super::data::{Account, Added, Cell, Data, Key, State};
use super::format::{count, integer, join, mpps, percent, short, signed};
use super::line_rate::{LINE_RATES, cores, packets_per_second};
use super::model::Model;
use super::setup;

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

/// An answer, and the same as a sentence. `**` marks emphasis.
pub(super) type Answered = (Answer, Option<String>);

/// Returns the answers in the order of the page.
pub(super) fn all(data: &Data, model: Option<&Model>) -> [Answered; 5] {
    let context = Context { data, model };
    [
        context.cheapest(),
        context.added_by_aes(),
        context.accounts_of_aes(),
        context.filter(),
        context.cores(),
    ]
}

struct Context<'a> {
    data: &'a Data,
    model: Option<&'a Model>,
}

/// A cell with a filter, and the cycles that the filter adds.
struct Filtered<'a> {
    cell: &'a Cell,
    placement: Placement,
    cycles: f64,
    added: Option<Added>,
}

impl<'a> Context<'a> {
    fn title(&self, cell: &Cell) -> &'a str {
        &self.data.rows()[cell.key.row].title
    }

    fn column_title(&self, column: usize) -> &'a str {
        &self.data.columns()[column].title
    }

    /// Names the cells that cannot be told from the answer's. Empty if there are none.
    fn also(&self, ties: &[&Cell]) -> String {
        let titles: Vec<String> = ties.iter().map(|cell| self.title(cell).to_owned()).collect();
        also(&titles)
    }

    /// Returns the cheapest cell without processing at a size.
    fn cheapest_at(&self, size: usize) -> Option<&'a Cell> {
        self.data.cheapest(|_| true, &[columns::none(self.data.columns())?], size)
    }

    fn cheapest(&self) -> Answered {
        let size = self.data.smallest_size();
        let size_name = self.data.size_name(size);
        let question = "Which path is cheapest without security?".to_owned();
        let none = columns::none(self.data.columns());
        let Some((none, (cell, cycles))) = none.zip(self.cheapest_at(size).and_then(with_cycles))
        else {
            return unknown(
                question,
                format!("no path without security has cycles at {size_name}"),
            );
        };
        let title = self.title(cell);
        let rate = mpps(cell.mpps.median);
        let figures = format!("{} cycles per packet at {size_name}, {rate} Mpps", integer(cycles));
        let without =
            self.data.measured().filter(|other| (other.key.column, other.key.size) == (none, size));
        let also = self.also(&self.data.ties(cell, without));
        let mut sentence =
            format!("Without security, **{title}** is the cheapest path: **{figures}**{also}");
        let in_user_space = self
            .data
            .cheapest(|row| row.place == "user", &[none], size)
            .filter(|user| user.key.row != cell.key.row)
            .and_then(with_cycles);
        let mut detail = format!("At {size_name}, {rate} Mpps{also}");
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

    /// Returns the cells with AES at a size that the answers are about, from the path that is
    /// cheapest without security at the smallest size. The first is the answer; the others are on
    /// paths that cannot be told from the first's by their cycles without security.
    fn cells_with_aes(&self, aes: usize, size: usize) -> Vec<&'a Cell> {
        let smallest = self.data.smallest_size();
        let none = columns::none(self.data.columns());
        let without = |row: usize| self.data.cell(row, none?, smallest);
        let cells: Vec<&Cell> = self
            .data
            .rows_by_cost(smallest)
            .into_iter()
            .filter_map(|row| self.data.cell(row, aes, size))
            .filter(|cell| cell.cycles.is_some())
            .collect();
        let Some(&first) = cells.first() else { return Vec::new() };
        let ties = without(first.key.row).map_or_else(Vec::new, |best| {
            let others = cells.iter().filter_map(|cell| without(cell.key.row));
            self.data.ties(best, others).iter().map(|cell| cell.key.row).collect()
        });
        let others = cells.iter().copied().filter(|cell| ties.contains(&cell.key.row));
        std::iter::once(first).chain(others).collect()
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

    /// Names what AES adds on the paths that cannot be told from the answer's.
    fn also_added(&self, others: &[&Cell], text: impl Fn(&Added) -> String) -> String {
        let parts: Vec<String> = others
            .iter()
            .filter_map(|cell| {
                let added = self.data.added(cell.key)?;
                Some(format!("{} ({})", self.title(cell), text(&added)))
            })
            .collect();
        also(&parts)
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
        let cells = self.cells_with_aes(aes, size);
        let cell = cells.first().copied();
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
        let also = self.also_added(&cells[1..], |added| signed(added.total));
        sentence += &also;
        detail += &also;
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

    fn accounts_of_aes(&self) -> Answered {
        let question = "Where are the cycles of AES spent?".to_owned();
        let size = self.data.largest_size();
        let cells = columns::aes(self.data.columns())
            .map(|aes| self.cells_with_aes(aes, size))
            .unwrap_or_default();
        let first = cells.first().and_then(|cell| Some((cell, self.data.added(cell.key)?)));
        let Some((cell, added)) = first else {
            return unknown(question, "no path has cycles with and without AES".to_owned());
        };
        let parts = Account::ALL.into_iter().zip(added.accounts);
        let parts: Vec<String> = parts
            .map(|(account, cycles)| format!("{} {}", account.name(), signed(cycles)))
            .collect();
        let parts = parts.join(", ");
        let title = self.title(cell);
        let answer = |figure: String, detail: String| Answer {
            question: question.clone(),
            figure,
            unit: format!("on {title}"),
            detail,
            accounts: Some(added.accounts),
            key: Some(cell.key),
        };
        if !added.is_distinct || added.total <= 0.0 {
            let reason = if added.is_distinct {
                "with AES, the path took fewer cycles than without"
            } else {
                "the rounds with and without AES overlap, so the difference may be chance"
            };
            let detail = format!("{} net ({parts}): {reason}.", signed(added.total));
            return (answer("unclear".to_owned(), detail), None);
        }
        let (account, most) = largest(&added);
        let (total, net) = (signed(added.total), signed(most));
        let also = self.also_added(&cells[1..], |added| {
            let (account, most) = largest(added);
            format!("{} {} of {} net", account.name(), signed(most), signed(added.total))
        });
        let sentence = format!(
            "**{}** account for **{net}** of {total} net cycles that AES adds ({parts}){also}.",
            capitalized(account.description())
        );
        let figure = format!("{}: {net} of {total} net", place(account));
        (answer(figure, format!("Cycles that AES adds: {parts}{also}.")), Some(sentence))
    }

    /// Returns the cells with a filter of the largest number of rules at a size.
    fn filtered(&self, filters: &[usize], size: usize) -> Vec<Filtered<'a>> {
        self.data
            .measured()
            .filter(|cell| cell.key.size == size && filters.contains(&cell.key.column))
            .filter_map(|cell| {
                Some(Filtered {
                    cell,
                    placement: columns::placement(&self.data.columns()[cell.key.column])?,
                    cycles: cell.cycles.as_ref()?.total.median,
                    added: self.data.added(cell.key),
                })
            })
            .collect()
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
        let cells = self.filtered(&filters, size);
        // The smallest of many differences is the one that chance lowers most, so only differences
        // beyond chance count, if there are any.
        let is_distinct = |entry: &&Filtered| entry.added.as_ref().is_some_and(|a| a.is_distinct);
        let mut candidates: Vec<&Filtered> = cells.iter().filter(is_distinct).collect();
        let may_be_chance = candidates.is_empty();
        if may_be_chance {
            candidates = cells.iter().filter(|entry| entry.added.is_some()).collect();
        }
        let least = candidates
            .iter()
            .filter_map(|entry| Some((*entry, entry.added.as_ref()?)))
            .min_by(|a, b| a.1.total.total_cmp(&b.1.total));
        let lowest = cells.iter().min_by(|a, b| a.cycles.total_cmp(&b.cycles));
        let (Some((least, added)), Some(lowest)) = (least, lowest) else {
            return unknown(
                question,
                format!("no path has cycles with and without this filter at {size_name}"),
            );
        };
        let ties: Vec<&Filtered> = candidates
            .iter()
            .copied()
            .filter(|entry| entry.cell.key != least.cell.key)
            .filter(|entry| {
                entry.added.as_ref().is_some_and(|a| a.low <= added.high && added.low <= a.high)
            })
            .collect();
        let place = |entry: &Filtered| {
            format!("in {} on {}", entry.placement.name(), self.title(entry.cell))
        };
        let also_least: Vec<String> = ties
            .iter()
            .filter_map(|entry| {
                Some(format!("{} ({})", place(entry), signed(entry.added.as_ref()?.total)))
            })
            .collect();
        let doubt = if may_be_chance { "; that may be chance" } else { "" };
        let least_text =
            format!("{}, {} cycles{doubt}{}", place(least), signed(added.total), also(&also_least));
        let also_lowest: Vec<String> = self
            .data
            .ties(lowest.cell, cells.iter().map(|entry| entry.cell))
            .into_iter()
            .filter_map(|cell| cells.iter().find(|entry| entry.cell.key == cell.key))
            .map(place)
            .collect();
        let lowest_text =
            format!("{}, {} cycles{}", place(lowest), integer(lowest.cycles), also(&also_lowest));
        let places: Vec<&str> = Placement::ALL
            .into_iter()
            .filter(|&placement| cells.iter().any(|entry| entry.placement == placement))
            .map(Placement::name)
            .collect();
        let only = match places.as_slice() {
            [only] => format!(". Only {only} was measured"),
            _ => String::new(),
        };
        let figure = if !only.is_empty() {
            format!("Unknown: only {} was measured", places[0])
        } else {
            format!("In {}", lowest.placement.name())
        };
        // Differences within chance cannot be compared with others.
        let is_within_chance =
            |entry: &&Filtered| entry.added.as_ref().is_some_and(|a| !a.is_distinct);
        let within_chance = cells.iter().filter(is_within_chance).count();
        let adds = match within_chance {
            some if some > 0 && !may_be_chance => format!(
                "adds nothing beyond chance in {some} of {} cells; of the others, it adds least \
                 {least_text}",
                cells.len()
            ),
            _ => format!("adds least {least_text}"),
        };
        let sentence = format!(
            "At {size_name}, a filter of {rules} is **cheapest {lowest_text}**. It {adds}{only}."
        );
        let answer = Answer {
            question,
            figure,
            unit: format!("on {}: {} cycles", self.title(lowest.cell), integer(lowest.cycles)),
            detail: format!(
                "At {size_name}. Lowest total: {lowest_text}. The filter {adds}{only}."
            ),
            accounts: None,
            key: Some(lowest.cell.key),
        };
        (answer, Some(sentence))
    }

    fn cores(&self) -> Answered {
        let size = self.data.smallest_size();
        let (rate_name, bits) = LINE_RATES[0];
        let size_name = self.data.size_name(size);
        let question = format!("How many cores for {rate_name} at {size_name} with AES?");
        let aes = columns::aes(self.data.columns());
        let cells = aes.map(|aes| self.cells_with_aes(aes, size)).unwrap_or_default();
        let cell = cells.first().copied().and_then(with_cycles);
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
        let ties: Vec<String> = cells[1..]
            .iter()
            .copied()
            .filter_map(with_cycles)
            .map(|(cell, cycles)| {
                format!("{} ({})", self.title(cell), short(cores(pps, cycles, tsc_hz)))
            })
            .collect();
        let title = self.title(cell);
        let product = format!(
            "{:.2} Mpps × {} cycles ÷ {:.2} GHz = {}",
            pps / 1e6,
            integer(cycles),
            tsc_hz / 1e9,
            short(needed)
        );
        let (direction, also) = (setup::direction(self.data), also(&ties));
        let sentence = format!(
            "{rate_name} at {size_name} with {} needs **{} on {title}** ({product}{others}){also}, \
             if cores and queues scale perfectly; {direction}.",
            self.column_title(aes),
            count(needed.ceil() as usize, "core"),
        );
        let answer = Answer {
            question,
            figure: count(needed.ceil() as usize, "core"),
            unit: format!("on {title}"),
            detail: format!("{product}{others}{also}. Assumes perfect scaling; {direction}."),
            accounts: None,
            key: Some(cell.key),
        };
        (answer, Some(sentence))
    }
}

pub(super) fn with_cycles(cell: &Cell) -> Option<(&Cell, f64)> {
    Some((cell, cell.cycles.as_ref()?.total.median))
}

/// Returns the account with the most added cycles.
fn largest(added: &Added) -> (Account, f64) {
    Account::ALL
        .into_iter()
        .zip(added.accounts)
        .max_by(|a, b| a.1.total_cmp(&b.1))
        .unwrap_or((Account::User, 0.0))
}

/// Returns an account as the answer to "where?".
fn place(account: Account) -> &'static str {
    match account {
        Account::User => "User space",
        Account::SystemCall => "System calls",
        Account::Softirq => "Softirqs",
    }
}

fn capitalized(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

/// Returns the alternatives to an answer that chance may separate from it, as an insertion.
fn also(alternatives: &[String]) -> String {
    if alternatives.is_empty() {
        String::new()
    } else {
        format!(" (also, within the intervals: {})", join(alternatives))
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
