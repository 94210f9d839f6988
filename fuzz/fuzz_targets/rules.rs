//! Parses arbitrary text as rules, as ClassBench rules, and as signatures. A rule or a signature
//! must not change when it is written and parsed again.
#![no_main]

use xdpfwd_filter::{Classifier, Verdict, parse, parse_classbench, parse_signatures};

libfuzzer_sys::fuzz_target!(|text: &str| {
    if let Ok(rules) = parse(text) {
        let rules: Vec<_> = rules.into_iter().map(|(_, rule)| rule).collect();
        for rule in &rules {
            let written = rule.to_string();
            let again =
                parse(&written).unwrap_or_else(|problems| panic!("{written}: {problems:?}"));
            assert_eq!(&again[0].1, rule, "{written}");
        }
        // Only checks that `shadowed` does not panic.
        let hash_seed = 1;
        xdpfwd_filter::shadowed(&rules, &Classifier::new(&rules, hash_seed));
    }
    // Only checks that the parser does not panic.
    let _ = parse_classbench(text, Verdict::Drop);
    if let Ok(signatures) = parse_signatures(text) {
        for (_, signature) in signatures {
            let written = signature.to_string();
            let again = parse_signatures(&written)
                .unwrap_or_else(|problems| panic!("{written}: {problems:?}"));
            assert_eq!(again[0].1, signature, "{written}");
        }
    }
});
