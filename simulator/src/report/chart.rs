//! Chart: lines or bars as one SVG that needs nothing else: readable on light and dark, on screen
//! and in print.
//!
//! Colours are those of Okabe and Ito, told apart with any kind of colour vision, and lines also
//! differ by their dashes.
//! **Invariant:** text is escaped; the same data gives the same bytes.

use super::axis::{Axis, Kind};
use std::fmt::Write;

const WIDTH: f64 = 760.0;
const LEFT: f64 = 62.0;
const RIGHT: f64 = 18.0;
/// Title, then the legend.
const TITLE: f64 = 30.0;
const LEGEND_ROW: f64 = 18.0;
const BOTTOM: f64 = 46.0;
const PLOT_HEIGHT: f64 = 210.0;
const BAR_ROW: f64 = 20.0;
/// Width of a letter of the legend, on average.
const LETTER: f64 = 6.4;

/// On white, then on black.
const COLOURS: [(&str, &str); 8] = [
    ("#0072b2", "#56b4e9"),
    ("#d55e00", "#ff9e5e"),
    ("#009e73", "#3fd0a8"),
    ("#b5508a", "#e6a3c8"),
    ("#c98900", "#f2c14e"),
    ("#3a9bd9", "#9bd4f7"),
    ("#6b4ea0", "#bda6e6"),
    ("#555555", "#bbbbbb"),
];
const DASHES: [&str; 4] = ["", "7 3", "2 3", "9 3 2 3"];

/// What stands on an axis.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Scale {
    pub label: String,
    pub kind: Kind,
}

impl Scale {
    pub fn new(label: &str, kind: Kind) -> Self {
        Self { label: label.to_owned(), kind }
    }
}

/// One line of a chart.
#[derive(Clone, PartialEq, Debug)]
pub struct Line {
    pub name: String,
    /// By rising first coordinate.
    pub points: Vec<(f64, f64)>,
    /// The value holds until the next point, instead of rising or falling towards it.
    pub steps: bool,
}

/// A bar of several parts, one after the other.
#[derive(Clone, PartialEq, Debug)]
pub struct Bar {
    pub name: String,
    /// Lengths, in the order of the parts' names.
    pub parts: Vec<f64>,
}

/// What a chart shows.
#[derive(Clone, PartialEq, Debug)]
pub enum Body {
    Lines {
        y: Scale,
        lines: Vec<Line>,
    },
    /// From the top down; the names of the parts make the legend.
    Bars {
        parts: Vec<String>,
        bars: Vec<Bar>,
    },
}

/// A chart.
#[derive(Clone, PartialEq, Debug)]
pub struct Chart {
    pub title: String,
    pub x: Scale,
    pub body: Body,
    /// A value of the first coordinate that is marked by a line across, with what it is.
    pub limit: Option<(f64, String)>,
}

struct Frame {
    top: f64,
    height: f64,
}

impl Frame {
    fn x(&self, place: f64) -> f64 {
        LEFT + place * (WIDTH - LEFT - RIGHT)
    }

    fn y(&self, place: f64) -> f64 {
        self.top + (1.0 - place) * self.height
    }

    fn bottom(&self) -> f64 {
        self.top + self.height
    }
}

impl Chart {
    /// Whether it has nothing to show.
    pub fn is_empty(&self) -> bool {
        match &self.body {
            Body::Lines { lines, .. } => lines.iter().all(|line| line.points.is_empty()),
            Body::Bars { bars, .. } => bars.is_empty(),
        }
    }

    /// The chart as an `svg` element.
    pub fn svg(&self) -> String {
        let names: Vec<&str> = match &self.body {
            Body::Lines { lines, .. } => lines.iter().map(|line| line.name.as_str()).collect(),
            Body::Bars { parts, .. } => parts.iter().map(String::as_str).collect(),
        };
        let (legend, legend_height) = self.legend(&names);
        let height = match &self.body {
            Body::Lines { .. } => PLOT_HEIGHT,
            Body::Bars { bars, .. } => BAR_ROW * bars.len().max(1) as f64,
        };
        let frame = Frame { top: TITLE + legend_height, height };
        let x = Axis::over(self.x.kind, self.x_values());
        let mut svg = head(frame.bottom() + BOTTOM, &self.title);
        svg.push_str(&legend);
        self.draw_x(&mut svg, &frame, &x);
        match &self.body {
            Body::Lines { y, lines } => draw_lines(&mut svg, &frame, &x, y, lines),
            Body::Bars { bars, .. } => draw_bars(&mut svg, &frame, &x, bars),
        }
        if let Some((at, what)) = &self.limit {
            draw_limit(&mut svg, &frame, frame.x(x.place(*at)), what);
        }
        svg.push_str("</svg>\n");
        svg
    }

    fn x_values(&self) -> impl Iterator<Item = f64> {
        let ends: Vec<f64> = match &self.body {
            Body::Lines { lines, .. } => {
                lines.iter().filter_map(|line| line.points.last()).map(|point| point.0).collect()
            }
            Body::Bars { bars, .. } => bars.iter().map(|bar| bar.parts.iter().sum()).collect(),
        };
        ends.into_iter().chain(self.limit.as_ref().map(|&(at, _)| at * 1.05))
    }

    /// One entry for each name, in rows, and the height of all rows.
    fn legend(&self, names: &[&str]) -> (String, f64) {
        let mut svg = String::new();
        let (mut x, mut row) = (LEFT, 0.0);
        for (number, name) in names.iter().enumerate() {
            let wide = 40.0 + LETTER * name.chars().count() as f64;
            if x > LEFT && x + wide > WIDTH - RIGHT {
                (x, row) = (LEFT, row + 1.0);
            }
            let y = TITLE + LEGEND_ROW * row + 4.0;
            let (hue, text) = (number % COLOURS.len(), escape(name));
            let swatch = match self.body {
                Body::Lines { .. } => {
                    format!(r#"<path class="l s{hue}"{} d="M{x:.1} {y:.1}h22"/>"#, dashes(number))
                }
                Body::Bars { .. } => format!(
                    r#"<rect class="f{hue}" x="{x:.1}" y="{:.1}" width="14" height="10"/>"#,
                    y - 5.0
                ),
            };
            let (at, base) = (x + 27.0, y + 4.0);
            let _ = writeln!(svg, r#"{swatch}<text x="{at:.1}" y="{base:.1}">{text}</text>"#);
            x += wide;
        }
        let rows = if names.is_empty() { 0.0 } else { row + 1.0 };
        (svg, LEGEND_ROW * rows + 4.0)
    }

    fn draw_x(&self, svg: &mut String, frame: &Frame, axis: &Axis) {
        let bottom = frame.bottom();
        for (value, text) in &axis.marks {
            let x = frame.x(axis.place(*value));
            let _ = writeln!(
                svg,
                r#"<path class="g" d="M{x:.1} {:.1}V{bottom:.1}"/><text class="m" text-anchor="middle" x="{x:.1}" y="{:.1}">{}</text>"#,
                frame.top,
                bottom + 16.0,
                escape(text)
            );
        }
        let label = labelled(&self.x.label, axis.unit);
        let (middle, y) = (frame.x(0.5), bottom + 36.0);
        let _ = writeln!(
            svg,
            r#"<text text-anchor="middle" x="{middle:.1}" y="{y:.1}">{label}</text>"#
        );
    }
}

fn head(height: f64, title: &str) -> String {
    let title = escape(title);
    let mut svg = format!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" class="chart" viewBox="0 0 {WIDTH} {height:.0}" role="img" aria-label="{title}">"#
    );
    svg.push_str("\n<style>");
    svg.push_str(STYLE);
    let mut dark = String::from(STYLE_DARK);
    for (number, (light, night)) in COLOURS.iter().enumerate() {
        let _ = write!(svg, ".chart .s{number}{{stroke:{light}}}.chart .f{number}{{fill:{light}}}");
        let _ =
            write!(dark, ".chart .s{number}{{stroke:{night}}}.chart .f{number}{{fill:{night}}}");
    }
    let _ = write!(svg, "@media(prefers-color-scheme:dark){{{dark}}}</style>");
    let _ = writeln!(
        svg,
        "\n<rect class=\"b\" width=\"{WIDTH}\" height=\"{height:.0}\"/>\
         <text class=\"t\" x=\"{LEFT}\" y=\"20\">{title}</text>"
    );
    svg
}

const STYLE: &str = ".chart text{font:12px system-ui,Helvetica,Arial,sans-serif;fill:#1f2328}\
    .chart .t{font-weight:600;font-size:14px}.chart .m{fill:#59636e;font-size:11px}\
    .chart .b{fill:#fff}.chart .g{stroke:#e3e6ea;fill:none}.chart .x{stroke:#8c959f;fill:none}\
    .chart .l{fill:none;stroke-width:1.7;stroke-linejoin:round}\
    .chart .r{stroke:#cf222e;stroke-width:1.4;stroke-dasharray:5 3;fill:none}\
    .chart .rt{fill:#cf222e;font-weight:600;font-size:11px}";
const STYLE_DARK: &str = ".chart text{fill:#e6edf3}.chart .m{fill:#9ba5b0}.chart .b{fill:#0d1117}\
    .chart .g{stroke:#262c34}.chart .x{stroke:#6e7681}.chart .r{stroke:#ff7b72}\
    .chart .rt{fill:#ff7b72}";

fn draw_lines(svg: &mut String, frame: &Frame, x: &Axis, y: &Scale, lines: &[Line]) {
    let values = lines.iter().flat_map(|line| line.points.iter().map(|point| point.1));
    let axis = Axis::over(y.kind, values);
    for (value, text) in &axis.marks {
        let at = frame.y(axis.place(*value));
        let _ = writeln!(
            svg,
            r#"<path class="g" d="M{LEFT} {at:.1}H{:.1}"/><text class="m" text-anchor="end" x="{:.1}" y="{:.1}">{}</text>"#,
            WIDTH - RIGHT,
            LEFT - 6.0,
            at + 4.0,
            escape(text)
        );
    }
    let (middle, label) = (frame.y(0.5), labelled(&y.label, axis.unit));
    let _ = writeln!(
        svg,
        r#"<text text-anchor="middle" transform="translate(14 {middle:.1}) rotate(-90)">{label}</text>"#
    );
    for (number, line) in lines.iter().enumerate().filter(|(_, line)| !line.points.is_empty()) {
        let mut path = String::new();
        for (at, &(first, second)) in line.points.iter().enumerate() {
            let (px, py) = (frame.x(x.place(first)), frame.y(axis.place(second)));
            let _ = match (at, line.steps) {
                (0, _) => write!(path, "M{px:.1} {py:.1}"),
                (_, true) => write!(path, "H{px:.1}V{py:.1}"),
                (_, false) => write!(path, "L{px:.1} {py:.1}"),
            };
        }
        let hue = number % COLOURS.len();
        let _ = writeln!(svg, r#"<path class="l s{hue}"{} d="{path}"/>"#, dashes(number));
    }
    let (top, bottom, end) = (frame.top, frame.bottom(), WIDTH - RIGHT);
    let _ = writeln!(svg, r#"<path class="x" d="M{LEFT} {top:.1}V{bottom:.1}H{end:.1}"/>"#);
}

fn draw_bars(svg: &mut String, frame: &Frame, x: &Axis, bars: &[Bar]) {
    for (row, bar) in bars.iter().enumerate() {
        let y = frame.top + BAR_ROW * row as f64;
        let _ = writeln!(
            svg,
            r#"<text class="m" text-anchor="end" x="{:.1}" y="{:.1}">{}</text>"#,
            LEFT - 6.0,
            y + 14.0,
            escape(&bar.name)
        );
        let mut from = 0.0;
        for (number, length) in bar.parts.iter().enumerate() {
            let (left, right) = (frame.x(x.place(from)), frame.x(x.place(from + length)));
            let (hue, wide) = (number % COLOURS.len(), right - left);
            let _ = writeln!(
                svg,
                r#"<rect class="f{hue}" x="{left:.1}" y="{:.1}" width="{wide:.1}" height="{:.0}"/>"#,
                y + 3.0,
                BAR_ROW - 6.0
            );
            from += length;
        }
    }
    let (top, bottom, end) = (frame.top, frame.bottom(), WIDTH - RIGHT);
    let _ = writeln!(svg, r#"<path class="x" d="M{LEFT} {top:.1}V{bottom:.1}H{end:.1}"/>"#);
}

fn draw_limit(svg: &mut String, frame: &Frame, x: f64, what: &str) {
    let (top, bottom, what) = (frame.top, frame.bottom(), escape(what));
    // The text stands on the side that has room.
    let (anchor, at) = if x > WIDTH / 2.0 { ("end", x - 5.0) } else { ("start", x + 5.0) };
    let _ = writeln!(
        svg,
        r#"<path class="r" d="M{x:.1} {top:.1}V{bottom:.1}"/><text class="rt" text-anchor="{anchor}" x="{at:.1}" y="{:.1}">{what}</text>"#,
        top + 12.0
    );
}

fn dashes(number: usize) -> String {
    match DASHES.get(number / 2 % DASHES.len()) {
        Some(&dashes) if !dashes.is_empty() => format!(r#" stroke-dasharray="{dashes}""#),
        _ => String::new(),
    }
}

fn labelled(label: &str, unit: &str) -> String {
    if unit.is_empty() { escape(label) } else { format!("{} ({unit})", escape(label)) }
}

/// Text as it may stand in SVG and HTML, in attributes too.
pub fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            // XML has no place for other control characters.
            letter if letter.is_control() && letter != '\n' => safe.push('\u{fffd}'),
            letter => safe.push(letter),
        }
    }
    safe
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(crate) fn line(name: &str, points: &[(f64, f64)]) -> Line {
        Line { name: name.to_owned(), points: points.to_vec(), steps: true }
    }

    pub(crate) fn lines(lines: Vec<Line>) -> Chart {
        Chart {
            title: "GPUs <in use> & free".to_owned(),
            x: Scale::new("time", Kind::Time),
            body: Body::Lines { y: Scale::new("GPUs", Kind::Number), lines },
            limit: Some((90.0, "90 s".to_owned())),
        }
    }

    #[test]
    fn text_is_escaped_and_tags_are_closed() {
        let svg = lines(vec![line("a\"b", &[(0.0, 1.0), (120.0, 2.0)])]).svg();
        assert!(svg.contains("GPUs &lt;in use&gt; &amp; free") && svg.contains("a&quot;b"));
        assert!(!svg.contains("<in use>"));
        assert_eq!(svg.matches("<text").count(), svg.matches("</text>").count());
        assert!(svg.contains("time (seconds)") && svg.contains(">90 s</text>"));
        assert!(!svg.contains("NaN") && !svg.contains("http://www.w3.org/1999"));
    }

    #[test]
    fn nothing_to_show_is_still_a_chart() {
        let chart = lines(Vec::new());
        assert!(chart.is_empty());
        assert!(!chart.svg().contains("NaN"));
    }

    #[test]
    fn bars_stand_in_rows_and_their_parts_follow_one_another() {
        let bar = |name: &str, parts: &[f64]| Bar { name: name.to_owned(), parts: parts.to_vec() };
        let chart = Chart {
            body: Body::Bars {
                parts: vec!["waiting".to_owned(), "starting".to_owned()],
                bars: vec![bar("1", &[10.0, 30.0]), bar("2", &[0.0, 50.0])],
            },
            ..lines(Vec::new())
        };
        let svg = chart.svg();
        assert_eq!(svg.matches(r#"class="f1""#).count(), 3, "two bars and the legend");
        // 90 s and a twentieth are within 100 s, which 680 units stand for.
        assert!(svg.contains(r#"class="f0" x="62.0" y="55.0" width="68.0""#), "{svg}");
        assert!(svg.contains(r#"class="f1" x="130.0" y="55.0" width="204.0""#), "{svg}");
    }
}
