//! Linear and logarithmic axes.

/// A logarithmic axis extends beyond its values by this factor.
const MARGIN: f64 = 1.15;

/// Maps values to coordinates.
#[derive(Clone, Debug)]
pub(super) struct Scale {
    is_log: bool,
    low: f64,
    high: f64,
    from: f64,
    to: f64,
    ticks: Vec<f64>,
}

impl Scale {
    /// Creates an axis from zero to `high`.
    pub(super) fn linear(high: f64, from: f64, to: f64) -> Self {
        let high = if high > 0.0 { high } else { 1.0 };
        let magnitude = 10f64.powf((high / 4.0).log10().floor());
        let step = [1.0, 2.0, 2.5, 5.0, 10.0]
            .map(|factor| factor * magnitude)
            .into_iter()
            .find(|step| high / step <= 4.0)
            .unwrap_or(10.0 * magnitude);
        let count = (high / step).floor() as u32;
        let ticks = (0..=count).map(|tick| f64::from(tick) * step).collect();
        Self { is_log: false, low: 0.0, high, from, to, ticks }
    }

    /// Creates a logarithmic axis from somewhat below `low` to somewhat above `high`.
    pub(super) fn log(low: f64, high: f64, from: f64, to: f64) -> Self {
        let low = if low > 0.0 { low } else { 1.0 };
        let (low, high) = (low / MARGIN, high.max(low) * MARGIN);
        let factors: &[f64] = match (high / low).log10() {
            decades if decades < 1.6 => &[1.0, 2.0, 5.0],
            decades if decades < 3.0 => &[1.0, 3.0],
            _ => &[1.0],
        };
        let ticks = (low.log10().floor() as i32..=high.log10().ceil() as i32)
            .flat_map(|power| factors.iter().map(move |factor| factor * 10f64.powi(power)))
            .filter(|tick| (low..=high).contains(tick))
            .collect();
        Self { is_log: true, low, high, from, to, ticks }
    }

    /// Returns the coordinate of a value. Values beyond the ends are drawn at the ends.
    pub(super) fn at(&self, value: f64) -> f64 {
        let map = |value: f64| if self.is_log { value.max(1e-12).ln() } else { value };
        let share = (map(value) - map(self.low)) / (map(self.high) - map(self.low));
        self.from + share.clamp(0.0, 1.0) * (self.to - self.from)
    }

    /// Returns values and texts for the marks of the axis.
    pub(super) fn ticks(&self) -> impl Iterator<Item = (f64, String)> {
        self.ticks.iter().map(|&tick| (tick, tick_text(tick)))
    }
}

fn tick_text(value: f64) -> String {
    if value >= 1000.0 {
        let thousands = value / 1000.0;
        let digits = usize::from(thousands.fract() > 1e-9);
        format!("{thousands:.digits$}k")
    } else if value == 0.0 || value >= 0.999 {
        let digits = usize::from(value.fract() > 1e-9 && value < 10.0);
        format!("{value:.digits$}")
    } else {
        let digits = (-value.log10().floor()) as usize;
        format!("{value:.digits$}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(scale: &Scale) -> Vec<String> {
        scale.ticks().map(|(_, text)| text).collect()
    }

    #[test]
    fn linear_axis_has_round_numbers_up_to_its_end() {
        let scale = Scale::linear(10_000.0, 0.0, 100.0);
        assert_eq!(texts(&scale), ["0", "2.5k", "5k", "7.5k", "10k"]);
        assert_eq!((scale.at(0.0), scale.at(7500.0), scale.at(20_000.0)), (0.0, 75.0, 100.0));
        assert_eq!(texts(&Scale::linear(11_900.0, 0.0, 1.0)), ["0", "5k", "10k"]);
    }

    #[test]
    fn log_axis_contains_all_values_and_equal_ratios_are_equally_long() {
        let scale = Scale::log(0.33, 148.8, 0.0, 90.0);
        assert_eq!(texts(&scale), ["0.3", "1", "3", "10", "30", "100"]);
        assert!((scale.at(3.0) - scale.at(0.3) - (scale.at(100.0) - scale.at(10.0))).abs() < 1e-9);
        assert!(scale.at(0.33) > 0.0 && scale.at(148.8) < 90.0 && scale.at(1e9) == 90.0);
    }

    #[test]
    fn axis_of_one_value_has_two_ends() {
        let scale = Scale::log(5.0, 5.0, 0.0, 1.0);
        assert!((scale.at(5.0) - 0.5).abs() < 1e-9, "{scale:?}");
        assert_eq!(Scale::linear(0.0, 0.0, 1.0).at(0.0), 0.0);
    }
}
