//! The results as a picture: a column a size of values; above how many a second, below how long the durable step takes.

use std::path::Path;

use plotters::coord::Shift;
use plotters::prelude::*;

use super::Result;
use super::round::{self, Load, Points, median};
use super::table::{About, size};
use super::way::Way;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

const SIZE: (u32, u32) = (1200, 900);
const FONT: &str = "sans-serif";
/// How wide all bars of one number of writers are together, of the room they have.
const GROUP: f64 = 0.84;

fn color(way: Way) -> RGBColor {
    match way {
        Way::Directory => RGBColor(150, 150, 150),
        Way::Library => RGBColor(86, 180, 233),
        Way::Mount => RGBColor(213, 94, 0),
        Way::Nothing => RGBColor(225, 215, 170),
    }
}

/// Which figure a panel shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Figure {
    /// Bars of cycles a second, with the ratio on top.
    PerSecond,
    /// Bars from p50 to p99.
    Step,
}

/// Draws all points into an SVG file.
pub(crate) fn draw(file: &Path, about: &About, points: &Points) -> Result<()> {
    if let Some(dir) = file.parent() {
        std::fs::create_dir_all(dir)?;
    }
    let mut sizes: Vec<usize> = points.keys().map(|load| load.bytes).collect();
    sizes.dedup();
    {
        let root = SVGBackend::new(file, SIZE).into_drawing_area();
        root.fill(&WHITE)?;
        let (head, rest) = root.split_vertically(84);
        legend(&head, about)?;
        let (above, below) = rest.split_vertically(400);
        for (area, figure) in [(above, Figure::PerSecond), (below, Figure::Step)] {
            for (area, &bytes) in area.split_evenly((1, sizes.len())).iter().zip(&sizes) {
                panel(area, points, bytes, figure)?;
            }
        }
        root.present()?;
    }
    Ok(())
}

fn legend(area: &Area<'_>, about: &About) -> Result<()> {
    area.draw(&Text::new("Durable commits", (20, 12), (FONT, 24).into_font()))?;
    area.draw(&Text::new(about.line(), (230, 19), (FONT, 15).into_font().color(&BLACK.mix(0.7))))?;
    for (place, way) in (0i32..).zip(Way::ALL) {
        let at = 20 + place * 215;
        area.draw(&Rectangle::new([(at, 54), (at + 16, 70)], color(way).filled()))?;
        let name = if way == Way::Nothing { "do-nothing FUSE (not durable)" } else { way.name() };
        area.draw(&Text::new(name, (at + 24, 55), (FONT, 15).into_font()))?;
    }
    Ok(())
}

fn panel(area: &Area<'_>, points: &Points, bytes: usize, figure: Figure) -> Result<()> {
    let here: Vec<(&Load, &round::Point)> = points.iter().filter(|(load, _)| load.bytes == bytes).collect();
    let mut groups: Vec<usize> = here.iter().map(|(load, _)| load.writers).collect();
    groups.dedup();
    let figures = here.iter().flat_map(|(_, point)| match figure {
        Figure::PerSecond => [median(&point.per_s); 2],
        Figure::Step => [median(&point.p50_us), median(&point.p99_us)],
    });
    let (least, most) =
        figures.fold((f64::MAX, f64::MIN_POSITIVE), |(least, most), figure| (least.min(figure), most.max(figure)));
    // Whole decades, with room for what stands on the bars.
    let range = 10f64.powf(least.max(1e-3).log10().floor())..10f64.powf((most * 1.8).log10().ceil());
    let title = match figure {
        Figure::PerSecond => format!("{} values: commits a second (x: against the directory)", size(bytes)),
        Figure::Step => format!("{} values: last write to durable, p50 to p99, us", size(bytes)),
    };
    let mut chart = ChartBuilder::on(area)
        .caption(title, (FONT, 17))
        .margin(14)
        .x_label_area_size(42)
        .y_label_area_size(72)
        .build_cartesian_2d(0f64..groups.len() as f64, range.clone().log_scale())?;
    let middles: Vec<String> = groups.iter().map(ToString::to_string).collect();
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(BLACK.mix(0.06))
        .bold_line_style(BLACK.mix(0.18))
        .x_labels(0)
        .y_label_formatter(&|figure| thousands(*figure))
        .label_style((FONT, 14))
        .draw()?;
    let least = range.start;
    for (load, point) in here {
        let Some(group) = groups.iter().position(|&writers| writers == load.writers) else { continue };
        let nth = Way::ALL.iter().position(|&way| way == load.way).unwrap_or(0) as f64;
        let width = GROUP / Way::ALL.len() as f64;
        let left = group as f64 + (1.0 - GROUP) / 2.0 + nth * width;
        let (low, high, words) = match figure {
            Figure::PerSecond => (least, median(&point.per_s), words(points, *load)),
            Figure::Step => (median(&point.p50_us), median(&point.p99_us), String::new()),
        };
        let corners = [(left, low), (left + width * 0.92, high)];
        // With a line around it, which is seen where both ends are one.
        let bars = [color(load.way).filled(), color(load.way).stroke_width(2)];
        chart.draw_series(bars.map(|style| Rectangle::new(corners, style)))?;
        let at = chart.backend_coord(&(left + width * 0.46, high));
        let style = TextStyle::from((FONT, 12).into_font()).pos(centered_above());
        area.root_text(&words, style, at)?;
    }
    let below = TextStyle::from((FONT, 14).into_font()).pos(centered_below());
    for (group, writers) in middles.iter().enumerate() {
        let at = chart.backend_coord(&(group as f64 + 0.5, least));
        let plural = if writers == "1" { "writer" } else { "writers" };
        area.root_text(&format!("{writers} {plural}"), below.clone(), (at.0, at.1 + 8))?;
    }
    Ok(())
}

/// What stands on a bar.
fn words(points: &Points, load: Load) -> String {
    match (load.way, round::ratio(points, load)) {
        (Way::Library | Way::Mount, Some(ratio)) => format!("{ratio:.1}x"),
        _ => String::new(),
    }
}

fn thousands(figure: f64) -> String {
    match figure {
        _ if figure >= 1e6 => format!("{} M", figure / 1e6),
        _ if figure >= 1e3 => format!("{} k", figure / 1e3),
        _ => figure.to_string(),
    }
}

fn centered_above() -> plotters::style::text_anchor::Pos {
    use plotters::style::text_anchor::{HPos, Pos, VPos};
    Pos::new(HPos::Center, VPos::Bottom)
}

fn centered_below() -> plotters::style::text_anchor::Pos {
    use plotters::style::text_anchor::{HPos, Pos, VPos};
    Pos::new(HPos::Center, VPos::Top)
}

/// Text at a place of the whole picture.
trait RootText {
    fn root_text(&self, text: &str, style: TextStyle<'_>, at: (i32, i32)) -> Result<()>;
}

impl RootText for Area<'_> {
    fn root_text(&self, text: &str, style: TextStyle<'_>, at: (i32, i32)) -> Result<()> {
        let (left, top) = self.get_base_pixel();
        Ok(self.draw_text(text, &style, (at.0 - left, at.1 - top))?)
    }
}
