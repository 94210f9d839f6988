//! State files of any bytes: what is read can be written, and is the same when it is read again.
#![no_main]

use xdpfwd_stages::esp::state::State;

fn look(text: &[u8]) {
    if let Ok(state) = State::parse(text) {
        let written = state.to_text();
        assert_eq!(State::parse(written.as_bytes()), Ok(state), "{written}");
        // One that was cut off is told from a whole one.
        let cut = written.len() * (text[0] as usize) / 256;
        assert!(State::parse(&written.as_bytes()[..cut]).is_err(), "{written} up to {cut}");
    }
}

libfuzzer_sys::fuzz_target!(|text: &[u8]| {
    look(text);
    // With all that a whole one begins and ends with, it gets to what is between.
    look(&[b"version = 1\nepoch = 7\n", text, b"\n# end\n"].concat());
});
