//! Reports: what runs came to, as text, as one HTML page that needs no network, and as SVG files.
//!
//! `axis` and `chart` draw, `table` lines up, `runs` chooses what to show of replayed runs.
//! **Invariant:** pure; a page holds all that it shows, and the command that makes it again.

mod axis;
pub mod chart;
pub mod runs;
pub mod table;

pub use axis::{Kind, number_text};
pub use chart::Chart;
pub use table::Table;

use chart::escape;
use std::fmt::Write;

/// A page: facts about it, tables, charts.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Page {
    pub title: String,
    /// Name and value: the command, the version, the input.
    pub facts: Vec<(String, String)>,
    pub tables: Vec<Table>,
    pub charts: Vec<Chart>,
}

const STYLE: &str = "body{font:15px/1.5 system-ui,Helvetica,Arial,sans-serif;max-width:1000px;\
    margin:2rem auto;padding:0 1rem;color:#1f2328;background:#fff}h1{font-size:1.5rem}\
    h2{font-size:1.05rem;margin:2rem 0 .4rem}table{border-collapse:collapse;font-size:13px;\
    display:block;overflow-x:auto}th,td{padding:.25rem .7rem;text-align:left;white-space:nowrap;\
    border-bottom:1px solid #d8dee4}.n{text-align:right;font-variant-numeric:tabular-nums}\
    .q{color:#59636e;font-size:13px}dl{display:grid;grid-template-columns:max-content 1fr;\
    gap:.2rem 1rem;font-size:13px}dt{color:#59636e}dd{margin:0;font-family:ui-monospace,monospace;\
    overflow-wrap:anywhere}svg.chart{width:100%;height:auto;margin:1rem 0}\
    @media(prefers-color-scheme:dark){body{color:#e6edf3;background:#0d1117}\
    th,td{border-color:#30363d}.q,dt{color:#9ba5b0}}";

impl Page {
    /// All tables as text.
    pub fn text(&self) -> String {
        self.tables.iter().map(Table::text).collect::<Vec<_>>().join("\n")
    }

    /// The page as one HTML file: no scripts, nothing from anywhere else.
    pub fn html(&self) -> String {
        let title = escape(&self.title);
        let mut html = format!(
            "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n\
             <meta name=\"color-scheme\" content=\"light dark\">\n\
             <title>{title}</title>\n<style>{STYLE}</style></head><body>\n<h1>{title}</h1>\n<dl>\n"
        );
        for (name, value) in &self.facts {
            let _ = writeln!(html, "<dt>{}</dt><dd>{}</dd>", escape(name), escape(value));
        }
        html.push_str("</dl>\n");
        for table in &self.tables {
            html.push_str(&table.html());
        }
        for chart in self.charts.iter().filter(|chart| !chart.is_empty()) {
            html.push_str(&chart.svg());
        }
        html.push_str("</body></html>\n");
        html
    }

    /// File name and text of every chart that has something to show.
    pub fn svgs(&self) -> Vec<(String, String)> {
        let shown = self.charts.iter().filter(|chart| !chart.is_empty());
        shown
            .zip(1..)
            .map(|(chart, number): (&Chart, u32)| {
                (format!("{number:02}-{}.svg", slug(&chart.title)), chart.svg())
            })
            .collect()
    }
}

/// A title as part of a file name.
fn slug(title: &str) -> String {
    let letters: String = title
        .chars()
        .map(
            |letter| if letter.is_ascii_alphanumeric() { letter.to_ascii_lowercase() } else { ' ' },
        )
        .collect();
    letters.split_whitespace().collect::<Vec<_>>().join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_holds_all_it_shows() {
        let page = Page {
            title: "A & B".to_owned(),
            facts: vec![("command".to_owned(), "muster sim replay --trace openb:<x>".to_owned())],
            tables: vec![Table::new("Runs", &["policy"], "")],
            charts: vec![chart::tests::lines(Vec::new())],
        };
        let html = page.html();
        assert!(html.contains("<title>A &amp; B</title>") && html.contains("openb:&lt;x&gt;"));
        for outside in ["src=", "href=", "@import", "url(", "<script"] {
            assert!(!html.contains(outside), "{outside}");
        }
        // The only address is the name of SVG's own vocabulary.
        assert_eq!(
            html.matches("http").count(),
            html.matches("http://www.w3.org/2000/svg").count()
        );
        assert!(page.svgs().is_empty(), "a chart without lines is left out");
        let line = chart::tests::line("a", &[(0.0, 1.0), (9.0, 2.0)]);
        let files = Page { charts: vec![chart::tests::lines(vec![line])], ..page }.svgs();
        assert_eq!(files[0].0, "01-gpus-in-use-free.svg");
    }
}
