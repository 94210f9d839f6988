//! Tests `xdpfwd top` in a terminal, with a running xdpfwd in the lab. Needs root and tmux.

mod support;

use std::process::Command;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use support::socket::Socket;
use support::tmux::Tmux;
use support::{Running, XDPFWD, build_lab, stderr};
use xdpfwd_lab::{Chain, Generator, Traffic};

/// A configuration with one stage, whose rule drops half of the lab's packets.
fn config(socket: &Socket) -> String {
    let rules = ["drop proto udp sport 1024-1025", "accept"];
    socket.config(&rules).replacen("cores = [1]", "cores = [1]\nmode = \"copy\"", 1)
}

/// Sends so few packets that none is lost, also if other programs use the cores. The generator
/// stops on drop.
fn send(lab: &Chain) -> Generator {
    let traffic = Traffic::new().size(60).flows(4).rate(1000).count(1_000_000).core(0);
    traffic.start(lab.gen_(), "gen0").unwrap()
}

fn top(socket: &Socket, arguments: &str) -> String {
    format!("{XDPFWD} top --socket {} {arguments}", socket.path())
}

/// Returns the value of a column in the row of the port lan; `None` without a rate.
fn rate_of_lan(screen: &str) -> Option<f64> {
    let row = screen.lines().find(|line| line.starts_with("lan "))?;
    let rate = row.split_whitespace().nth(4)?;
    let (number, factor) = match rate.strip_suffix('k') {
        Some(number) => (number, 1000.0),
        None => (rate, 1.0),
    };
    Some(number.parse::<f64>().ok()? * factor)
}

macro_rules! assert_screen {
    ($name:expr, $text:expr) => {
        insta::with_settings!({ omit_expression => true, prepend_module_to_snapshot => false }, {
            insta::assert_snapshot!($name, $text)
        })
    };
}

/// Replaces numbers by `#`, and removes sparklines, bars and what the panel of the kernel's share
/// says without figures: what remains does not depend on time and speed.
fn mask(screen: &str, socket: &Socket) -> String {
    let mask_word = |word: &str| {
        let is_number = word.starts_with(|c: char| c.is_ascii_digit())
            && word.chars().all(|c| c.is_ascii_digit() || ",.:kMG%".contains(c));
        if is_number { "#".to_owned() } else { word.to_owned() }
    };
    let is_chart = |c: char| ('▁'..='▏').contains(&c) || c == '·';
    let mask_line = |line: &str| {
        let line = line.replace(socket.path(), "SOCKET").replace(is_chart, " ");
        let line: Vec<String> = line.split_whitespace().map(mask_word).collect();
        let mut line = line.join(" ");
        while line.contains("──") {
            line = line.replace("──", "─");
        }
        for text in [
            "not measured by this version",
            "off: set kernel_ledger = \"sampled\" in",
            "[engine] and restart",
        ] {
            line = line.replace(text, "");
        }
        // In one line, only owners with frames are listed.
        if line.starts_with("Buffers leaked") {
            line = "Buffers leaked # …".to_owned();
        }
        // After a minute, the uptime has no unit.
        line.trim_end().replace("up # s", "up #")
    };
    screen.trim_end().lines().map(mask_line).collect::<Vec<_>>().join("\n")
}

fn is_steady(screen: &str) -> bool {
    let grows = |line: &str| line.contains("policy ") && !line.contains(" 0 ");
    rate_of_lan(screen).is_some_and(|rate| rate > 0.0) && screen.lines().any(grows)
}

#[test]
fn top_shows_a_running_xdpfwd_in_small_and_large_windows() {
    let (lab, socket) = (build_lab(Chain::builder()), Socket::new("top"));
    let running = Running::start(&lab, &config(&socket));
    let _generator = send(&lab);
    let tmux = Tmux::start(&top(&socket, ""), 80, 24);
    assert_screen!("top-80x24", mask(&tmux.wait_for(is_steady), &socket));
    tmux.resize(200, 50);
    let is_large = |screen: &str| is_steady(screen) && screen.contains("what to do");
    assert_screen!("top-200x50", mask(&tmux.wait_for(is_large), &socket));

    // Other sizes, and back.
    tmux.resize(20, 5);
    tmux.wait_for_text("window too small");
    tmux.resize(80, 24);
    tmux.wait_for_text("Tasks of the workers");
    tmux.press("5");
    tmux.wait_for(|screen| {
        screen.contains("User space and kernel") && !screen.contains("Tasks of the workers")
    });
    tmux.press("?");
    tmux.wait_for_text("pause and resume");
    tmux.press("1");
    tmux.wait_for_text("Tasks of the workers");

    // While paused, no figure changes.
    tmux.press("p");
    let paused = tmux.wait_for_text("PAUSED");
    let interval = std::time::Duration::from_secs(1);
    std::thread::sleep(interval + interval / 2);
    assert_eq!(tmux.screen(), paused);
    tmux.press("p");
    tmux.wait_for(|screen| !screen.contains("PAUSED") && is_steady(screen));

    tmux.press("q");
    let screen = tmux.wait_for_text("exit ");
    assert_eq!(screen.trim_end(), "text before\nexit 0", "the screen is not restored");
    running.stop();
}

/// Returns the lines that the view of the kernel's share always has: without alerts and title,
/// which depend on other programs and the window, and without groups of functions, which are listed
/// only with samples.
fn mask_kernel_view(screen: &str, socket: &Socket) -> String {
    let is_stable = |line: &&str| {
        let varies = [" WARN ", " OK ", "User space and kernel", "  ", "xdpfwd "];
        !line.trim().is_empty() && !varies.iter().any(|start| line.starts_with(start))
    };
    let stable: Vec<&str> = screen.lines().filter(is_stable).collect();
    let mut masked = mask(&stable.join("\n"), socket);
    // An account without samples has fewer figures.
    while masked.contains("# #") {
        masked = masked.replace("# #", "#");
    }
    masked
}

#[test]
fn top_shows_the_kernels_share_of_a_sampled_run() {
    let (lab, socket) = (build_lab(Chain::builder()), Socket::new("share"));
    let config = config(&socket).replacen("[engine]", "[engine]\nkernel_ledger = \"sampled\"", 1);
    let running = Running::start(&lab, &config);
    let traffic = Traffic::new().size(60).flows(4).rate(50_000).count(100_000_000).core(0);
    let _generator = traffic.start(lab.gen_(), "gen0").unwrap();
    let tmux = Tmux::start(&top(&socket, ""), 80, 24);
    tmux.press("5");
    // Samples of the transmit system call and of softirqs, which the worker's packets cause.
    let has_samples = |screen: &str| {
        let samples = |account: &str| {
            let row = screen.lines().find(|line| line.starts_with(account))?;
            row.split_whitespace().nth(1)?.replace(',', "").parse::<u64>().ok()
        };
        samples("system_call").is_some_and(|n| n > 0) && samples("softirq").is_some_and(|n| n > 0)
    };
    // The groups of functions in which a worker transmits.
    let has_group = |screen: &str| {
        ["af_xdp_transmit", "driver_transmit"].iter().any(|group| screen.contains(group))
    };
    tmux.wait_for(|screen| has_samples(screen) && has_group(screen));
    tmux.resize(200, 50);
    let screen =
        tmux.wait_for(|screen| has_samples(screen) && screen.contains("cost of measuring"));
    assert_screen!("top-kernel-200x50", mask_kernel_view(&screen, &socket));
    running.stop();
}

#[test]
fn top_survives_the_end_of_xdpfwd_and_finds_the_next() {
    let (lab, socket) = (build_lab(Chain::builder()), Socket::new("next"));
    let mut running = Running::start(&lab, &config(&socket));
    let generator = send(&lab);
    let tmux = Tmux::start(&top(&socket, "--interval 0.2"), 100, 30);
    tmux.wait_for(is_steady);
    running.signal(Signal::SIGKILL);
    running.wait();
    let screen = tmux.wait_for_text("LOST");
    assert!(screen.contains("no xdpfwd listens on"), "{screen}");
    assert!(rate_of_lan(&screen).is_some(), "the last figures are gone:\n{screen}");
    drop(generator);

    // The counters of the new process start at 0, so no rate is negative or large.
    let second = Running::start(&lab, &config(&socket));
    let is_idle = |screen: &str| !screen.contains("LOST") && rate_of_lan(screen) == Some(0.0);
    let screen = tmux.wait_for(is_idle);
    assert!(screen.contains("none since the start"), "{screen}");
    let _generator = send(&lab);
    tmux.wait_for(is_steady);
    tmux.press("C-c");
    tmux.wait_for_text("exit 0");
    second.stop();
}

#[test]
fn top_restores_the_terminal_on_signals() {
    let (lab, socket) = (build_lab(Chain::builder()), Socket::new("signals"));
    let running = Running::start(&lab, &config(&socket));
    for signal in [Signal::SIGTERM, Signal::SIGHUP, Signal::SIGINT] {
        let command = format!("NO_COLOR=1 {}", top(&socket, "--interval 0.5"));
        let tmux = Tmux::start(&command, 80, 24);
        tmux.wait_for_text("Tasks of the workers");
        let styled = tmux.styled_screen();
        for color in ["\u{1b}[3", "\u{1b}[4"] {
            // 39 and 49 are the default colors.
            let count = |text: &str| styled.matches(text).count();
            assert_eq!(count(color), count(&format!("{color}9m")), "{styled:?}");
        }
        kill(Pid::from_raw(tmux.program_pid()), signal).unwrap();
        let screen = tmux.wait_for_text("exit ");
        assert_eq!(screen.trim_end(), "text before\nexit 0", "{signal}");
    }
    running.stop();
}

#[test]
fn top_ends_if_its_terminal_closes() {
    let (lab, socket) = (build_lab(Chain::builder()), Socket::new("hangup"));
    let running = Running::start(&lab, &config(&socket));
    // The shell hands its process over to `top`, and `top` ignores the signal of a closed terminal,
    // as under nohup: only the end of the input remains.
    let command = format!("trap '' HUP; {}", top(&socket, ""));
    let tmux = Tmux::start(&command, 80, 24);
    tmux.wait_for_text("Tasks of the workers");
    let pid = Pid::from_raw(tmux.program_pid());
    drop(tmux);
    support::until("the end of top", || kill(pid, None).is_err());
    running.stop();
}

#[test]
fn top_without_terminal_or_server_fails_with_a_hint() {
    let socket = Socket::new("none");
    let output = Command::new(XDPFWD).args(["top", "--socket", socket.path()]).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let hint = format!("xdpfwd ctl stats --json --socket {}", socket.path());
    let text = stderr(&output);
    assert!(text.contains("stdout is not a terminal") && text.contains(&hint), "{text}");
    let tmux = Tmux::start(&top(&socket, ""), 80, 24);
    let screen = tmux.wait_for_text("exit ");
    assert!(screen.contains("no xdpfwd listens on") && screen.contains("exit 1"), "{screen}");
}
