//! Screens as text.

use ratatui::style::Color;

use super::*;

macro_rules! assert_screen {
    ($name:expr, $text:expr) => {
        insta::with_settings!({ omit_expression => true, prepend_module_to_snapshot => false }, {
            insta::assert_snapshot!($name, $text)
        })
    };
}

#[test]
fn screen_without_problems_shows_all_panels() {
    let model = model_after(8, unchanged);
    assert_screen!("healthy-80x24", text(&draw(&screen(&model), 80, 24)));
    assert_screen!("healthy-200x50", text(&draw(&screen(&model), 200, 50)));
}

#[test]
fn screen_with_problems_names_them_first() {
    let model = model_after(12, trouble);
    assert_screen!("trouble-80x24", text(&draw(&screen(&model), 80, 24)));
    assert_screen!("trouble-200x50", text(&draw(&screen(&model), 200, 50)));
    for (name, view) in [("kernel", View::Kernel), ("drops", View::Drops)] {
        let screen = Screen { view, ..screen(&model) };
        assert_screen!(format!("trouble-{name}-80x24"), text(&draw(&screen, 80, 24)));
    }
}

#[test]
fn screen_with_many_rows_says_how_many_are_missing() {
    let model = model_after(2, crowd);
    assert_screen!("crowd-80x24", text(&draw(&screen(&model), 80, 24)));
    assert_screen!("crowd-200x50", text(&draw(&screen(&model), 200, 50)));
    let scrolled = Screen { view: View::Stages, scroll: 7, ..screen(&model) };
    assert_screen!("crowd-stages-80x24", text(&draw(&scrolled, 80, 24)));
}

#[test]
fn screen_without_connection_says_so_and_keeps_the_figures() {
    let model = model_after(8, unchanged);
    let reason = "no xdpfwd listens on /run/xdpfwd.sock: Connection refused (os error 111); start \
                  it with [engine] control = \"/run/xdpfwd.sock\"";
    let lost = Connection::Lost(reason.to_owned());
    let screen = Screen { connection: &lost, age: Duration::from_secs(75), ..screen(&model) };
    let buffer = draw(&screen, 80, 24);
    assert_screen!("lost-80x24", text(&buffer));
    let ports = buffer.cell((0, 6)).unwrap();
    assert!(ports.modifier.contains(ratatui::style::Modifier::DIM), "{ports:?}");
}

#[test]
fn screen_of_a_silent_server_says_how_long_it_waits() {
    let model = model_after(8, unchanged);
    let screen = Screen { age: Duration::from_secs(9), ..screen(&model) };
    let text = text(&draw(&screen, 80, 24));
    assert!(text.contains("WAIT  no answer for 9 s"), "{text}");
}

#[test]
fn screen_in_a_small_window_drops_columns_or_refuses() {
    let model = model_after(8, trouble);
    assert_screen!("trouble-60x16", text(&draw(&screen(&model), 60, 16)));
    assert_screen!("tiny-20x5", text(&draw(&screen(&model), 20, 5)));
}

#[test]
fn help_explains_keys_and_figures() {
    let model = model_after(8, unchanged);
    let screen = Screen { shows_help: true, is_paused: true, ..screen(&model) };
    assert_screen!("help-80x24", text(&draw(&screen, 80, 24)));
}

#[test]
fn screen_of_any_size_is_drawn_without_control_characters() {
    let edits = [unchanged as fn(&mut Value, f64), trouble, crowd];
    for model in edits.map(|edit| model_after(3, edit)) {
        for (view, ..) in View::ALL {
            for width in [1, 2, 7, 20, 59, 60, 61, 71, 72, 80, 119, 120, 150, 240] {
                for height in [1, 3, 5, 15, 16, 17, 24, 36, 70] {
                    let screen = Screen { view, scroll: 1000, ..screen(&model) };
                    let text = text(&draw(&screen, width, height));
                    let is_unsafe = |c: char| c.is_control() && c != '\n' || c == '\u{202e}';
                    assert!(!text.contains(is_unsafe), "{width}x{height}: {text:?}");
                }
            }
        }
    }
}

#[test]
fn screen_without_color_marks_problems_by_reversed_labels() {
    let model = model_after(8, trouble);
    let with = draw(&screen(&model), 80, 24);
    let without = draw(&Screen { theme: Theme { has_color: false }, ..screen(&model) }, 80, 24);
    assert_eq!(text(&with), text(&without));
    let label = |buffer: &Buffer| buffer.cell((1, 1)).unwrap().clone();
    assert_eq!((label(&with).symbol(), label(&with).bg), ("B", Color::Red));
    assert!(label(&without).modifier.contains(ratatui::style::Modifier::REVERSED));
    for cell in without.content() {
        assert_eq!((cell.fg, cell.bg), (Color::Reset, Color::Reset), "{cell:?}");
    }
}
