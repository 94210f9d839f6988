//! Parses arbitrary state files. A parsed state must not change when it is written and parsed
//! again, and a truncated file must be rejected.
#![no_main]

use xdpfwd_stages::esp::state::State;

fn check(text: &[u8]) {
    if let Ok(state) = State::parse(text) {
        let written = state.to_text();
        assert_eq!(State::parse(written.as_bytes()), Ok(state), "{written}");
        // Truncate the file at a position that the first byte determines.
        let cut = written.len() * (text[0] as usize) / 256;
        assert!(State::parse(&written.as_bytes()[..cut]).is_err(), "{written} up to {cut}");
    }
}

libfuzzer_sys::fuzz_target!(|text: &[u8]| {
    check(text);
    // Add valid first and last lines: without them, the parser rejects most texts at once.
    check(&[b"version = 1\nepoch = 7\n", text, b"\n# end\n"].concat());
});
