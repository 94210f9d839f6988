//! The layout of a state file: a header, and two slots that are written in turn.
//!
//! All bytes are text. A slot holds a whole state with a generation and a checksum; the valid slot
//! with the higher generation is current. So a torn write damages only the older state.

use std::str;

use super::numbers::STEP;
use crate::esp::state::{SequenceState, State, StateError};

/// Length of the header. The mark of a failed write is in its first 512 bytes, which disks write
/// atomically.
pub(super) const HEADER_LEN: usize = 4096;
/// The length of each slot, and of each write, is a multiple of this length.
const BLOCK: usize = 4096;
/// Maximum length of the text before and after the SAs in a slot.
const SLOT_OVERHEAD: usize = 256;

const TITLE: &str = "# Written by xdpfwd. Do not edit or copy: two processes that continue from \
    one state repeat nonces.\n# Two copies of the state follow. The one with the higher generation \
    counts.\nversion = 2\nwrite_failed = ";
/// The two values of `write_failed`, the mark of a failed write.
const FAILED: [&str; 2] = ["false\n", "true\n"];
const GENERATION: &str = "generation = ";
const END: &str = "\n# end ";

/// The content of a state file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Content {
    pub(super) state: State,
    /// Whether a write has failed, and no later one succeeded.
    pub(super) has_failed: bool,
    /// `None` for the text format of version 1, without slots.
    pub(super) slots: Option<Position>,
}

/// Where the newest state is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Position {
    pub(super) slot_len: usize,
    /// The slot with the newest state: 0 or 1.
    pub(super) newest: usize,
    pub(super) generation: u64,
}

impl Position {
    pub(super) fn file_len(self) -> usize {
        HEADER_LEN + 2 * self.slot_len
    }

    pub(super) fn slot_offset(self, slot: usize) -> usize {
        HEADER_LEN + slot * self.slot_len
    }
}

/// Returns the length of slots with room for `sas` SAs: a power of two. So a larger file, which
/// replaces the old one, is at least twice as long, and growth is rare.
pub(super) fn slot_len_for(sas: usize) -> usize {
    let text_len = SLOT_OVERHEAD + sas.min(State::MAX_SAS) * State::MAX_SA_LEN;
    text_len.next_power_of_two().max(BLOCK)
}

/// Returns the number of SAs for which a slot of this length has room.
pub(super) fn capacity(slot_len: usize) -> usize {
    slot_len.saturating_sub(SLOT_OVERHEAD) / State::MAX_SA_LEN
}

pub(super) fn max_file_len() -> usize {
    HEADER_LEN + 2 * slot_len_for(State::MAX_SAS)
}

/// Returns the header, padded to its length.
pub(super) fn header(has_failed: bool) -> Vec<u8> {
    pad(format!("{TITLE}{}", FAILED[usize::from(has_failed)]).into_bytes(), HEADER_LEN)
}

/// Pads text with one line of spaces.
fn pad(mut text: Vec<u8>, len: usize) -> Vec<u8> {
    if text.len() < len {
        text.resize(len - 1, b' ');
        text.push(b'\n');
    }
    text
}

/// Returns the bytes to write to a slot: whole blocks.
pub(super) fn slot(state: &State, generation: u64) -> Vec<u8> {
    let mut text = format!("{GENERATION}{generation}\n{}", state.body());
    let checksum = crc32fast::hash(text.as_bytes());
    text.push_str(&format!("{END}{checksum:08x}\n"));
    let len = text.len().next_multiple_of(BLOCK);
    pad(text.into_bytes(), len)
}

/// Returns a whole file with the same state in both slots, and the position of the newest one. The
/// slots have room for `sas` SAs, and at least for those of the state.
pub(super) fn file(state: &State, generation: u64, sas: usize) -> (Vec<u8>, Position) {
    let slot_len = slot_len_for(sas.max(state.sas.len()));
    let mut bytes = header(false);
    for slot_number in 0..2 {
        bytes.extend(pad(slot(state, generation + slot_number), slot_len));
    }
    (bytes, Position { slot_len, newest: 1, generation: generation + 1 })
}

/// Returns whether the header, or the beginning of it, has the mark of a failed write.
pub(super) fn is_marked(header: &[u8]) -> bool {
    let mark = header.strip_prefix(TITLE.as_bytes());
    mark.is_some_and(|mark| mark.starts_with(FAILED[1].as_bytes()))
}

pub(super) fn parse(bytes: &[u8]) -> Result<Content, StateError> {
    let Some(mark) = bytes.strip_prefix(TITLE.as_bytes()) else {
        // A file of version 1.
        let state = State::parse(bytes)?;
        return Ok(Content { state, has_failed: false, slots: None });
    };
    let Some(failed) = FAILED.iter().position(|word| mark.starts_with(word.as_bytes())) else {
        return Err(StateError::Header);
    };
    let slots_len = bytes.len().saturating_sub(HEADER_LEN);
    let slot_len = slots_len / 2;
    if bytes.len() > max_file_len() || slot_len < BLOCK || !slots_len.is_multiple_of(2 * BLOCK) {
        return Err(StateError::Length(bytes.len()));
    }
    let mut slots = bytes[HEADER_LEN..].chunks(slot_len).map(parse_slot);
    let (first, second) = match (slots.next(), slots.next()) {
        (Some(first), Some(second)) => (first, second),
        _ => return Err(StateError::Length(bytes.len())),
    };
    let (newest, (mut state, generation), is_alone) = match (first, second) {
        (Ok(first), Ok(second)) if first.1 > second.1 => (0, first, false),
        (Ok(_), Ok(second)) => (1, second, false),
        (Ok(first), Err(_)) => (0, first, true),
        (Err(_), Ok(second)) => (1, second, true),
        (Err(error), Err(_)) => return Err(error),
    };
    if is_alone {
        // Usually, a crash has interrupted the write of the other slot, so no worker has used the
        // numbers of that write. But perhaps the write was completed and its slot was damaged
        // later: skip the numbers that it could have reserved.
        skip_one_write(&mut state);
    }
    let slots = Some(Position { slot_len, newest, generation });
    Ok(Content { state, has_failed: failed == 1, slots })
}

/// Skips the epoch and the sequence numbers that one write can reserve.
fn skip_one_write(state: &mut State) {
    state.epoch = state.epoch.saturating_add(1);
    for sa in &mut state.sas {
        if let SequenceState::Out { next, .. } = &mut sa.sequence {
            *next = next.saturating_add(STEP).min(State::MAX_NUMBER);
        }
    }
}

/// Returns the state and its generation.
fn parse_slot(slot: &[u8]) -> Result<(State, u64), StateError> {
    let end = slot.windows(END.len()).position(|window| window == END.as_bytes());
    let (text, rest) = slot.split_at(end.ok_or(StateError::Damaged)?);
    let checksum =
        rest.get(END.len()..END.len() + 8).and_then(|digits| str::from_utf8(digits).ok());
    let checksum = checksum.and_then(|digits| u32::from_str_radix(digits, 16).ok());
    if checksum != Some(crc32fast::hash(text)) {
        return Err(StateError::Damaged);
    }
    let text = str::from_utf8(text).map_err(|_| StateError::Damaged)?;
    let (generation, body) = text
        .strip_prefix(GENERATION)
        .and_then(|text| text.split_once('\n'))
        .ok_or(StateError::Damaged)?;
    let generation = generation.parse().map_err(|_| StateError::Damaged)?;
    Ok((State::parse_body(body)?, generation))
}
