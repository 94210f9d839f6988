//! The terminal: keys, signals, and a clean end.

use std::fs::File;
use std::io::{self, IsTerminal as _};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;

use super::client::{self, Reading};
use super::model::Model;
use super::screen::{Connection, Screen, View, max_scroll};
use super::snapshot::Snapshot;
use super::theme::Theme;
use crate::cli::Top;
use crate::ctl;

/// Time between two checks for readings and signals.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

pub(super) fn run(cli: &Top, first: Snapshot) -> anyhow::Result<()> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGHUP, SIGINT, SIGTERM] {
        // The second signal ends the process at once, for example if the terminal blocks writes.
        flag::register_conditional_shutdown(signal, 1, Arc::clone(&stop))
            .and_then(|_| flag::register(signal, Arc::clone(&stop)))
            .context("cannot handle signals")?;
    }
    let readings = client::start(cli.socket.clone(), cli.interval)
        .context("cannot start the thread that reads reports")?;
    // Also restores the terminal after a panic.
    let mut terminal = ratatui::try_init().context("cannot set up the terminal")?;
    let ended = Keyboard::open().and_then(|keyboard| {
        LiveView::new(cli, first).run(&mut terminal, &keyboard, &readings, &stop)
    });
    let restored = ratatui::try_restore();
    if stop.load(Ordering::Relaxed) {
        // After SIGHUP, the terminal may no longer exist.
        return Ok(());
    }
    ended.and(restored).context("cannot use the terminal")
}

/// The terminal from which crossterm reads keys: stdin, or `/dev/tty` if stdin is redirected.
enum Keyboard {
    Stdin(io::Stdin),
    Tty(File),
}

/// The result of waiting for keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Input {
    Ready,
    None,
    /// The terminal no longer exists.
    Closed,
}

impl Keyboard {
    fn open() -> io::Result<Self> {
        let stdin = io::stdin();
        if stdin.is_terminal() {
            Ok(Self::Stdin(stdin))
        } else {
            File::open("/dev/tty").map(Self::Tty)
        }
    }

    /// Waits until keys can be read. crossterm must not wait: if the terminal is closed, crossterm
    /// reads its end without a pause and never returns.
    fn wait(&self, timeout: Duration) -> io::Result<Input> {
        let fd = match self {
            Self::Stdin(stdin) => stdin.as_fd(),
            Self::Tty(file) => file.as_fd(),
        };
        let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
        let timeout = Timespec::try_from(timeout).map_err(io::Error::other)?;
        match poll(&mut fds, Some(&timeout)) {
            Ok(0) | Err(Errno::INTR) => Ok(Input::None),
            Ok(_) if fds[0].revents() == PollFlags::IN => Ok(Input::Ready),
            Ok(_) => Ok(Input::Closed),
            Err(error) => Err(error.into()),
        }
    }
}

/// The state of the live view.
struct LiveView {
    model: Model,
    /// The figures at the time of the pause, while paused.
    paused: Option<Model>,
    connection: Connection,
    last_report: Instant,
    interval: Duration,
    shows_help: bool,
    view: View,
    scroll: usize,
    theme: Theme,
    socket: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Continue,
    Quit,
}

impl LiveView {
    fn new(cli: &Top, first: Snapshot) -> Self {
        Self {
            model: Model::new(first),
            paused: None,
            connection: Connection::Live,
            last_report: Instant::now(),
            interval: cli.interval,
            shows_help: false,
            view: View::default(),
            scroll: 0,
            theme: Theme::from_environment(),
            socket: ctl::escape::line(&cli.socket.display().to_string()),
        }
    }

    fn run(
        &mut self,
        terminal: &mut DefaultTerminal,
        keyboard: &Keyboard,
        readings: &Receiver<Reading>,
        stop: &AtomicBool,
    ) -> io::Result<()> {
        while !stop.load(Ordering::Relaxed) {
            terminal.draw(|frame| self.screen().draw(frame))?;
            let height = terminal.size()?.height;
            // Handle all keys that have arrived before drawing again.
            match keyboard.wait(POLL_INTERVAL)? {
                Input::Closed => return Ok(()),
                Input::None => {}
                Input::Ready => {
                    while event::poll(Duration::ZERO)? {
                        if let Event::Key(key) = event::read()?
                            && self.handle_key(key, height) == Next::Quit
                        {
                            return Ok(());
                        }
                    }
                }
            }
            loop {
                match readings.try_recv() {
                    Ok(reading) => self.add(reading),
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => {
                        return Err(io::Error::other("the thread that reads reports has ended"));
                    }
                }
            }
        }
        Ok(())
    }

    fn add(&mut self, reading: Reading) {
        match reading {
            Ok(snapshot) => {
                self.model.add(snapshot, self.connection == Connection::Live);
                self.connection = Connection::Live;
                self.last_report = Instant::now();
            }
            Err(reason) => self.connection = Connection::Lost(reason),
        }
    }

    fn screen(&self) -> Screen<'_> {
        Screen {
            model: self.paused.as_ref().unwrap_or(&self.model),
            connection: &self.connection,
            age: self.last_report.elapsed(),
            interval: self.interval,
            is_paused: self.paused.is_some(),
            shows_help: self.shows_help,
            view: self.view,
            scroll: self.scroll,
            theme: self.theme,
            socket: &self.socket,
        }
    }

    fn handle_key(&mut self, key: KeyEvent, height: u16) -> Next {
        if key.kind == KeyEventKind::Release {
            return Next::Continue;
        }
        let is_control = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Char('c') if is_control => return Next::Quit,
            KeyCode::Char('q') | KeyCode::Esc => return Next::Quit,
            KeyCode::Char('?' | 'h') => self.shows_help = !self.shows_help,
            KeyCode::Char('p' | ' ') => {
                self.paused = if self.paused.is_some() { None } else { Some(self.model.clone()) };
            }
            KeyCode::Tab | KeyCode::Right => self.select(self.view.moved(1)),
            KeyCode::BackTab | KeyCode::Left => self.select(self.view.moved(-1)),
            KeyCode::Up => self.scroll(-1, height),
            KeyCode::Down => self.scroll(1, height),
            KeyCode::PageUp => self.scroll(-10, height),
            KeyCode::PageDown => self.scroll(10, height),
            KeyCode::Home => self.scroll = 0,
            KeyCode::Char(digit) => {
                if let Some((view, ..)) = View::ALL.iter().find(|(_, key, _)| *key == digit) {
                    self.select(*view);
                }
            }
            _ => {}
        }
        Next::Continue
    }

    fn select(&mut self, view: View) {
        (self.view, self.scroll, self.shows_help) = (view, 0, false);
    }

    fn scroll(&mut self, rows: isize, height: u16) {
        let model = self.paused.as_ref().unwrap_or(&self.model);
        // Header, at least one alert, keys.
        let last = max_scroll(self.view, model, height.saturating_sub(3));
        self.scroll = self.scroll.min(last).saturating_add_signed(rows).min(last);
    }
}
