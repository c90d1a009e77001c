//! Size classes: jobs told apart by how many GPUs they ask for.

/// A class of job sizes, from small to large.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum SizeClass {
    /// No GPU at all.
    Cpu,
    /// Less than one GPU.
    Share,
    One,
    UpTo4,
    UpTo8,
    UpTo64,
    UpTo512,
    Larger,
}

impl SizeClass {
    pub const ALL: [Self; 8] = [
        Self::Cpu,
        Self::Share,
        Self::One,
        Self::UpTo4,
        Self::UpTo8,
        Self::UpTo64,
        Self::UpTo512,
        Self::Larger,
    ];

    /// Class of a job that asks for this many thousandths of GPUs.
    pub fn of(gpu_milli: u64) -> Self {
        match gpu_milli {
            0 => Self::Cpu,
            1..1_000 => Self::Share,
            1_000 => Self::One,
            1_001..=4_000 => Self::UpTo4,
            4_001..=8_000 => Self::UpTo8,
            8_001..=64_000 => Self::UpTo64,
            64_001..=512_000 => Self::UpTo512,
            _ => Self::Larger,
        }
    }

    /// GPUs of its jobs, as written in tables and files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cpu => "0",
            Self::Share => "<1",
            Self::One => "1",
            Self::UpTo4 => "2-4",
            Self::UpTo8 => "5-8",
            Self::UpTo64 => "9-64",
            Self::UpTo512 => "65-512",
            Self::Larger => ">512",
        }
    }
}
