//! Builds the data of a filter for the XDP program (`place = "kernel"`): the constants and maps
//! that `bpf/filter.h` and `bpf/classify.h` read.

use std::sync::Arc;

use xdpfwd_filter::{Classifier, Image, Rule, SpaceImage, Verdict};
use xdpfwd_pipeline::{
    Cx, Location, PlanDiagnostic, Stage, View, XdpArray, XdpImage, XdpOffload, XdpTables,
};

use super::exception::{self, ExceptionAction, ExceptionPolicy};

/// The XDP program with the classifier: `bpf/xdpfwd_filter.bpf.c`.
pub const IMAGE_PROGRAM: &str = "xdpfwd_filter";

/// The image of a filter (constants and BPF maps for the XDP program), and whether the
/// configuration requires the XDP program.
#[derive(Debug)]
pub(super) struct Offload {
    pub(super) image: Arc<XdpImage>,
    pub(super) required: bool,
}

impl XdpOffload for Offload {
    fn image(&self) -> &Arc<XdpImage> {
        &self.image
    }

    fn is_required(&self) -> bool {
        self.required
    }
}

/// Returns the image, or one diagnostic for each part that the XDP program does not support.
/// Filters with the same `verdict_key` give the same verdicts.
#[allow(clippy::too_many_arguments, reason = "the parts of a filter; called only once")]
pub(super) fn image(
    rules: &[Rule],
    locations: &[Location],
    classifier: &Classifier,
    default: Verdict,
    exceptions: ExceptionPolicy,
    gtpu_inner: bool,
    verdict_key: String,
) -> Result<Arc<XdpImage>, Vec<PlanDiagnostic>> {
    let mut reasons = Vec::new();
    let mut unsupported =
        |message: String| reasons.push(PlanDiagnostic { location: Location::Stage, message });
    if gtpu_inner {
        unsupported("gtpu = \"inner\": the XDP program does not parse GTP-U".to_owned());
    }
    let image = match classifier.image(rules) {
        Ok(image) => Some(image),
        Err(error) => {
            unsupported(error.to_string());
            None
        }
    };
    for (rule, location) in rules.iter().zip(locations) {
        let modifiers = [("rate limits", rule.limit.is_some()), ("logging", rule.log.is_some())];
        if let Some((modifier, _)) = modifiers.into_iter().find(|(_, is_used)| *is_used) {
            let message = format!("`{rule}`: the XDP program does not support {modifier}");
            reasons.push(PlanDiagnostic { location: location.clone(), message });
        }
    }
    let Some(image) = image.filter(|_| reasons.is_empty()) else { return Err(reasons) };
    let mut tables = map_contents(image);
    let filter_struct = filter_struct(rules, default, exceptions);
    tables.read_only.push((".rodata.filter".to_owned(), filter_struct));
    // The loader compares these constants with those in the XDP program's section
    // `.rodata.in_step`: both must be equal (in step).
    let shared_constants = Image::SHARED_CONSTANTS.into_iter().flat_map(u32::to_ne_bytes).collect();
    Ok(Arc::new(XdpImage {
        program: IMAGE_PROGRAM,
        constants: vec![(".rodata.in_step", shared_constants)],
        tables,
        // One per rule, one for the default, then the packet exceptions' counters. The sum cannot
        // overflow: `Classifier::image` rejects too many rules.
        counters: ("hits", rules.len() as u32 + 1 + exception::COUNTERS as u32),
        verdict_key,
    }))
}

/// Returns the contents of the maps of `bpf/classify.h`. For each IP version, `SpaceImage::space`
/// contains the tables of fixed size, and each other field the content of one map.
pub fn map_contents(image: Image) -> XdpTables {
    let mut tables = XdpTables::default();
    for (version, space) in [("v4", image.v4), ("v6", image.v6)] {
        let SpaceImage { space, first, parts, sets, tags, firsts, entries } = space;
        tables.read_only.push((format!(".rodata.{version}"), space));
        // The maps are named after fields of `SpaceImage`, which describes them.
        let maps = [
            ("first", first),
            ("parts", parts),
            ("sets", sets),
            ("tags", tags),
            ("firsts", firsts),
            ("entries", entries),
        ];
        tables.arrays.extend(maps.map(|(name, table)| XdpArray {
            map: format!("{name}_{version}"),
            values: u32::try_from(table.values()).unwrap_or(u32::MAX),
            bytes: table.bytes,
        }));
    }
    tables
}

/// Returns the bytes of `struct filter` in `bpf/filter.h`.
fn filter_struct(rules: &[Rule], default: Verdict, exceptions: ExceptionPolicy) -> Vec<u8> {
    let has_continue = rules.iter().any(|rule| rule.verdict.is_none());
    // The values of `enum exception_action`.
    let action = |action: ExceptionAction| match action {
        ExceptionAction::MatchRules => 0,
        ExceptionAction::Accept => 1,
        ExceptionAction::Drop => 2,
        ExceptionAction::AcceptArp => 3,
    };
    let first_fields =
        [rules.len() as u32, u32::from(default == Verdict::Accept), u32::from(has_continue)];
    // The 0 is `exception[REASON_POLICY]`, which is not used. The other actions have the order of
    // `enum reason`.
    let fields = first_fields.into_iter().chain([0]).chain(exceptions.0.map(action));
    fields.flat_map(u32::to_ne_bytes).collect()
}

/// The user-space stage of a filter that the XDP program has already applied: passes all packets.
#[derive(Clone, Copy, Debug)]
pub(super) struct PassThrough;

impl Stage for PassThrough {
    fn process(&mut self, _: &mut View<'_>, _: &mut Cx<'_>) {}

    fn needs_headers(&self) -> bool {
        false
    }
}
