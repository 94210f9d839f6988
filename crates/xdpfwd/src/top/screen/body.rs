//! The arrangement of the panels.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};

use crate::top::model::Model;
use crate::top::panel::Panel;
use crate::top::panels::{self, Detail, Remedies};
use crate::top::table::{self, Overflow};
use crate::top::theme::Tone;

use super::state::{Screen, View};

/// The size from which one screen holds every panel in full.
const LARGE: (u16, u16) = (120, 30);

/// The width from which two panels stand side by side.
const TWO_COLUMNS: u16 = 72;

/// Columns between two panels.
const GAP: u16 = 2;

/// Returns the panel of a view that has the whole body.
fn whole_panel(view: View, model: &Model) -> Panel {
    match view {
        View::Drops => panels::drops(model, Remedies::Notes),
        view => panel(view, model),
    }
}

/// Returns the panel of a view, as a part of the view of all panels.
fn panel(view: View, model: &Model) -> Panel {
    match view {
        View::All | View::Ports => panels::ports(model),
        View::Stages => panels::stages(model),
        View::Tasks => panels::tasks(model, usize::MAX),
        View::Kernel => panels::kernel(model, Detail::All),
        View::Drops => panels::drops(model, Remedies::Column),
        View::Buffers => panels::buffers(model),
    }
}

/// Returns the highest useful scroll position of a view in a body of this height.
pub(crate) fn max_scroll(view: View, model: &Model, height: u16) -> usize {
    if view == View::All { 0 } else { table::max_scroll(&whole_panel(view, model), height) }
}

impl Screen<'_> {
    pub(super) fn draw_body(&self, area: Rect, frame: &mut Frame<'_>) {
        if self.view != View::All {
            let overflow = Overflow::Scroll(self.scroll);
            let panel = whole_panel(self.view, self.model);
            table::draw(&panel, overflow, self.theme, area, frame.buffer_mut());
        } else if area.width >= LARGE.0 && area.height >= LARGE.1 {
            self.draw_large(area, frame);
        } else if area.width >= TWO_COLUMNS {
            self.draw_compact(area, frame);
        } else {
            self.draw_narrow(area, frame);
        }
    }

    fn put(&self, view: View, area: Rect, frame: &mut Frame<'_>) {
        self.put_panel(&panel(view, self.model), view, area, frame);
    }

    fn put_panel(&self, panel: &Panel, view: View, area: Rect, frame: &mut Frame<'_>) {
        let overflow = Overflow::Key(view.key());
        table::draw(panel, overflow, self.theme, area, frame.buffer_mut());
    }

    fn put_tasks(&self, area: Rect, frame: &mut Frame<'_>) {
        let max_rows = usize::from(area.height.saturating_sub(2));
        self.put_panel(&panels::tasks(self.model, max_rows), View::Tasks, area, frame);
    }

    fn needs(&self, view: View) -> u16 {
        table::height(&panel(view, self.model))
    }

    /// Ports above three columns of costs, above losses and buffers.
    fn draw_large(&self, area: Rect, frame: &mut Frame<'_>) {
        let ports = self.needs(View::Ports).min(area.height / 4);
        let costs = [View::Stages, View::Tasks, View::Kernel].map(|view| self.needs(view));
        let costs = costs.into_iter().max().unwrap_or(0);
        let bottom = self.needs(View::Buffers);
        let costs = costs.min(area.height.saturating_sub(ports + bottom + 2));
        let [ports_area, costs_area, rest] = Layout::vertical([
            Constraint::Length(ports),
            Constraint::Length(costs),
            Constraint::Min(0),
        ])
        .spacing(1)
        .areas(area);
        self.put(View::Ports, ports_area, frame);
        let [stages, tasks, kernel] =
            Layout::horizontal([Constraint::Fill(10), Constraint::Fill(8), Constraint::Fill(10)])
                .spacing(GAP)
                .areas(costs_area);
        self.put(View::Stages, stages, frame);
        self.put(View::Tasks, tasks, frame);
        self.put(View::Kernel, kernel, frame);
        let [drops, buffers] =
            Layout::horizontal([Constraint::Fill(5), Constraint::Fill(3)]).spacing(GAP).areas(rest);
        self.put(View::Drops, drops, frame);
        self.put(View::Buffers, buffers, frame);
    }

    /// Ports above two columns: stages and tasks; losses and the kernel. Buffers in one line.
    fn draw_compact(&self, area: Rect, frame: &mut Frame<'_>) {
        let ports = self.needs(View::Ports).min((area.height / 3).max(4));
        let [ports_area, middle, buffers] = Layout::vertical([
            Constraint::Length(ports),
            Constraint::Min(0),
            Constraint::Length(1),
        ])
        .areas(area);
        self.put(View::Ports, ports_area, frame);
        let [left, right] = Layout::horizontal([Constraint::Fill(1), Constraint::Fill(1)])
            .spacing(GAP)
            .areas(middle);
        let stages = self.needs(View::Stages).min(left.height / 2);
        let [stages_area, tasks_area] =
            Layout::vertical([Constraint::Length(stages), Constraint::Min(0)]).areas(left);
        self.put(View::Stages, stages_area, frame);
        self.put_tasks(tasks_area, frame);
        let kernel_panel = panels::kernel(self.model, Detail::Accounts);
        let kernel = match kernel_panel.rows.is_empty() {
            // The reason can take several lines.
            true => 4,
            false => table::height(&kernel_panel),
        };
        let kernel = kernel.min((right.height / 2).max(right.height.saturating_sub(6)));
        let drops = self.needs(View::Drops).min(right.height.saturating_sub(kernel + 1));
        let [drops_area, kernel_area] =
            Layout::vertical([Constraint::Length(drops), Constraint::Length(kernel)])
                .spacing(1)
                .areas(right);
        self.put(View::Drops, drops_area, frame);
        self.put_panel(&kernel_panel, View::Kernel, kernel_area, frame);
        self.draw_buffers_line(buffers, frame);
    }

    /// The panels that show what is wrong, one above the other.
    fn draw_narrow(&self, area: Rect, frame: &mut Frame<'_>) {
        let ports = self.needs(View::Ports).min((area.height / 3).max(4));
        let spare = area.height.saturating_sub(ports + 1);
        let drops = self.needs(View::Drops).min((spare / 2).max(4));
        let [ports_area, drops_area, tasks, buffers] = Layout::vertical([
            Constraint::Length(ports),
            Constraint::Length(drops),
            Constraint::Min(0),
            Constraint::Length(1),
        ])
        .areas(area);
        self.put(View::Ports, ports_area, frame);
        self.put(View::Drops, drops_area, frame);
        self.put_tasks(tasks, frame);
        self.draw_buffers_line(buffers, frame);
    }

    fn draw_buffers_line(&self, area: Rect, frame: &mut Frame<'_>) {
        let (text, tone) = panels::buffers_line(self.model);
        let label = "Buffers ";
        let buffer = frame.buffer_mut();
        let (x, _) = buffer.set_stringn(
            area.x,
            area.y,
            label,
            usize::from(area.width),
            self.theme.style(Tone::Strong),
        );
        let room = usize::from(area.right().saturating_sub(x));
        let text = crate::top::format::fit(&text, room);
        buffer.set_stringn(x, area.y, text, room, self.theme.style(tone));
    }
}
