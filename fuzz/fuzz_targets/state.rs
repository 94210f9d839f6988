//! Arbitrary state files: parsed states survive a write and read.
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
    // Valid first and last lines let the parser reach the lines between.
    check(&[b"version = 1\nepoch = 7\n", text, b"\n# end\n"].concat());
});
