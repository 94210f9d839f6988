//! Runs `dpdk-test-crypto-perf` with the drivers that use libipsec-mb.

use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::options::{Arguments, Cipher, Direction};

pub(super) const NAME: &str = "dpdk-test-crypto-perf";

pub(super) struct Run {
    /// TSC cycles per nanosecond, computed from the rate and the cycles per operation.
    pub(super) gigahertz: f64,
    /// Bytes of encrypted text, and cycles per operation.
    pub(super) cycles: Vec<(usize, f64)>,
}

/// Measures all text lengths in one process, with AAD of 12 bytes, and batches of 32, the program's
/// default and fastest size.
pub(super) fn round(arguments: &Arguments, direction: Direction, texts: &[usize]) -> Result<Run> {
    let (driver, algorithm, key) = match arguments.transform {
        Cipher::Aes128Gcm => ("crypto_aesni_gcm", "aes-gcm", "16"),
        Cipher::Aes256Gcm => ("crypto_aesni_gcm", "aes-gcm", "32"),
        Cipher::ChaCha20Poly1305 => ("crypto_chacha20_poly1305", "chacha20-poly1305", "32"),
    };
    let operation = match direction {
        Direction::Seal => "encrypt",
        Direction::Open => "decrypt",
    };
    // DPDK's main thread idles on `main_core`; `arguments.core` works.
    let main_core = usize::from(arguments.core == 0);
    let lengths: Vec<String> = texts.iter().map(ToString::to_string).collect();
    let output = Command::new(NAME)
        .args(["--no-huge", "--no-pci", "--no-telemetry", "--no-shconf", "-m", "512"])
        .args([
            "--main-lcore",
            &main_core.to_string(),
            "-l",
            &format!("{main_core},{}", arguments.core),
        ])
        .args(["--vdev", &format!("{driver}0"), "--"])
        .args(["--ptest", "throughput", "--silent", "--csv-friendly", "--devtype", driver])
        .args([
            "--optype",
            "aead",
            "--aead-algo",
            algorithm,
            "--aead-op",
            operation,
            "--aead-key-sz",
            key,
        ])
        .args([
            "--aead-iv-sz",
            "12",
            "--aead-aad-sz",
            "12",
            "--digest-sz",
            "16",
            "--burst-sz",
            "32",
        ])
        .args([
            "--buffer-sz",
            &lengths.join(","),
            "--total-ops",
            &arguments.dpdk_packets.to_string(),
        ])
        .args(["--pool-sz", &arguments.frames.to_string()])
        .output()
        .context("cannot start the program; run: apt-get install dpdk-dev")?;
    let stdout = String::from_utf8_lossy(&output.stdout);
    let mut cycles_by_text = Vec::new();
    let mut gigahertz = Vec::new();
    for text in texts {
        let (rate, cycles) = read(&stdout, *text).with_context(|| {
            let stderr = String::from_utf8_lossy(&output.stderr);
            // The first letter, left out here, may be upper or lower case.
            let reason = stderr
                .lines()
                .chain(stdout.lines())
                .rfind(|line| ["rror", "ailed", "annot"].iter().any(|word| line.contains(word)));
            format!(
                "the program ended with {} without a result for {text} bytes: {}",
                output.status,
                reason.unwrap_or("no reason was printed")
            )
        })?;
        ensure!(
            rate > 0.0 && cycles > 0.0,
            "invalid result for {text} bytes: {rate} Mops, {cycles} cycles"
        );
        cycles_by_text.push((*text, cycles));
        gigahertz.push(rate * cycles / 1000.0);
    }
    gigahertz.sort_by(f64::total_cmp);
    let gigahertz = *gigahertz.get(gigahertz.len() / 2).context("--sizes is empty")?;
    Ok(Run { gigahertz, cycles: cycles_by_text })
}

/// Returns millions of operations per second, and cycles per operation, from the line for `text`
/// bytes. The columns are:
///
/// `#lcore id,Buffer Size(B),Burst Size,Enqueued,Dequeued,Failed Enq,Failed
/// Deq,Ops(Millions),Throughput(Gbps),Cycles/Buf`
fn read(output: &str, text: usize) -> Option<(f64, f64)> {
    output.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(',').map(str::trim).collect();
        let [_, size, .., rate, _, cycles] = fields[..] else { return None };
        (size.parse() == Ok(text)).then_some(())?;
        Some((rate.parse().ok()?, cycles.parse().ok()?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Output of DPDK 22.11.
    const OUTPUT: &str = "Allocated pool \"sess_mp_0\" on socket 0
#lcore id,Buffer Size(B),Burst Size,Enqueued,Dequeued,Failed Enq,Failed Deq,Ops(Millions),Throughput(Gbps),Cycles/Buf

1,68,32,1000000,1000000,0,0,12.304,6.693,211.313
1,1404,32,1000000,1000000,0,0,3.219,36.162,807.642
";

    #[test]
    fn read_returns_rate_and_cycles_of_given_length() {
        assert_eq!(read(OUTPUT, 68), Some((12.304, 211.313)));
        assert_eq!(read(OUTPUT, 1404), Some((3.219, 807.642)));
        assert_eq!(read(OUTPUT, 32), None);
        assert_eq!(read("", 68), None);
    }
}
