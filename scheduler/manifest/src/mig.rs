//! MIG: parts of an NVIDIA GPU that its driver cuts off, as Kubernetes' device plugin counts them.
//!
//! With its mixed strategy the plugin advertises every kind of part as a countable resource of its
//! own: `nvidia.com/mig-1g.10gb`. Nodes here declare them by the same name, `/` written as a point.
//! Source: `nvidia.com/mig-*` in NVIDIA's device plugin, which writes a `+` of a profile as a point.
//! **Invariant:** equal parts come to the same resource, whoever asks for them.

use crate::finding::quote;

/// What Kubernetes' resource of a profile begins with.
pub(crate) const PREFIX: &str = "nvidia.com/mig-";
/// Longest profile: the resource's name must be one that nodes can declare.
const PROFILE_BYTES_MAX: usize = 40;
/// Most slices that a GPU is cut into.
const SLICES_MAX: u32 = 8;

/// The resource that nodes declare for a profile such as `1g.10gb`, `1c.2g.20gb` or `1g.10gb+me`.
pub(crate) fn resource(profile: &str) -> Result<String, String> {
    if !is_profile(profile) {
        return Err(format!("{} is no MIG profile, such as 1g.10gb or 1g.10gb+me", quote(profile)));
    }
    Ok(format!("{PREFIX}{profile}").replace(['/', '+'], "."))
}

fn is_profile(text: &str) -> bool {
    if text.len() > PROFILE_BYTES_MAX {
        return false;
    }
    let end = text.find("gb").map(|at| at + 2);
    let Some((sizes, attributes)) = end.and_then(|end| text.split_at_checked(end)) else {
        return false;
    };
    let is_size = match sizes.split('.').collect::<Vec<_>>().as_slice() {
        [slices, memory] => is_count(slices, "g") && is_memory(memory),
        [compute, slices, memory] => {
            is_count(compute, "c") && is_count(slices, "g") && is_memory(memory)
        }
        _ => false,
    };
    is_size && are_attributes(attributes)
}

fn is_count(text: &str, unit: &str) -> bool {
    let count = text.strip_suffix(unit).filter(|count| is_number(count));
    count
        .and_then(|count| count.parse().ok())
        .is_some_and(|count| (1..=SLICES_MAX).contains(&count))
}

fn is_memory(text: &str) -> bool {
    text.strip_suffix("gb").is_some_and(is_number)
}

/// Digits, not more than are sensible, that do not begin with 0.
fn is_number(text: &str) -> bool {
    let is_digits = text.bytes().all(|byte| byte.is_ascii_digit());
    (1..=4).contains(&text.len()) && is_digits && !text.starts_with('0')
}

/// Such as `+me`, `.me.all` or `-me`.
fn are_attributes(text: &str) -> bool {
    let mut rest = text;
    while let Some(more) = rest.strip_prefix(['+', '.', '-']) {
        let end = more.find(|c: char| !c.is_ascii_lowercase()).unwrap_or(more.len());
        if end == 0 {
            return false;
        }
        rest = more.get(end..).unwrap_or("");
    }
    rest.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profiles_and_their_resources() {
        for (profile, wanted) in [
            ("1g.10gb", "nvidia.com.mig-1g.10gb"),
            ("7g.80gb", "nvidia.com.mig-7g.80gb"),
            ("1c.2g.20gb", "nvidia.com.mig-1c.2g.20gb"),
            ("1g.10gb+me", "nvidia.com.mig-1g.10gb.me"),
            ("1g.10gb.me", "nvidia.com.mig-1g.10gb.me"),
            ("1g.24gb+me.all", "nvidia.com.mig-1g.24gb.me.all"),
            ("1g.24gb-me", "nvidia.com.mig-1g.24gb-me"),
        ] {
            assert_eq!(resource(profile).as_deref(), Ok(wanted));
        }
        for bad in [
            "",
            "1g",
            "10gb",
            "1g10gb",
            "g.10gb",
            "1g.gb",
            "0g.10gb",
            "9g.10gb",
            "1g.010gb",
            "1g.10GB",
            "1G.10gb",
            "1g.10gb+",
            "1g.10gb+ME",
            "1g.10gb me",
            "1g.10gib",
            "2g.1g.10gb",
            "1c.1c.1g.10gb",
            "mig-1g.10gb",
            "1g.99999gb",
            "1g.10gb/x",
            "+1g.10gb",
            "1g.10gb++me",
        ] {
            assert!(resource(bad).is_err(), "{bad}");
        }
        assert!(resource(&format!("1g.10gb+{}", "m".repeat(40))).is_err());
    }
}
