//! Parses arbitrary state files. Parsed states do not change if written and parsed again.
#![no_main]

use xdpfwd_stages::esp::state::State;

fn check(text: &[u8]) {
    if let Ok(state) = State::parse(text) {
        let written = state.to_text();
        assert_eq!(State::parse(written.as_bytes()), Ok(state), "{written}");
        // A truncated file is rejected.
        let cut = written.len() * (text[0] as usize) / 256;
        assert!(State::parse(&written.as_bytes()[..cut]).is_err(), "{written} up to {cut}");
    }
}

libfuzzer_sys::fuzz_target!(|text: &[u8]| {
    check(text);
    // With valid first and last lines, the parser reaches the lines between them.
    check(&[b"version = 1\nepoch = 7\n", text, b"\n# end\n"].concat());
});
