//! The results as a picture. Of commits a column a size of values: above how many a second, below how long the durable
//! step takes. Then a bar for each aim: how much of the room it gives is used.

use std::path::Path;

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::Result;
use super::aims::{self, Row};
use super::round::{self, Load, Points, median};
use super::table::{About, size};
use super::way::Way;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

const WIDTH: u32 = 1200;
const HEAD: u32 = 84;
/// How high a row of panels about commits is.
const PANELS: u32 = 408;
/// How high the bar of an aim is, and what stands around all of them.
const BAR: u32 = 26;
const AROUND_BARS: u32 = 84;
/// What the names of the aims need.
const NAMES: i32 = 400;
const FONT: &str = "sans-serif";
/// How wide all bars of one number of writers are together, of the room they have.
const GROUP: f64 = 0.84;

fn color(way: Way) -> RGBColor {
    match way {
        Way::Directory => RGBColor(150, 150, 150),
        Way::Library => RGBColor(86, 180, 233),
        Way::Mount => RGBColor(213, 94, 0),
        Way::Nothing => RGBColor(225, 215, 170),
        Way::OneSync => RGBColor(0, 158, 115),
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

/// Draws all points and aims into an SVG file.
pub(crate) fn draw(file: &Path, about: &About, points: &Points, rows: &[Row]) -> Result<()> {
    if let Some(dir) = file.parent() {
        std::fs::create_dir_all(dir)?;
    }
    let mut sizes: Vec<usize> = points.keys().map(|load| load.bytes).collect();
    sizes.dedup();
    let panels: &[Figure] = if sizes.is_empty() { &[] } else { &[Figure::PerSecond, Figure::Step] };
    let bars = if rows.is_empty() { 0 } else { AROUND_BARS + BAR * rows.len() as u32 };
    let root = SVGBackend::new(file, (WIDTH, HEAD + PANELS * panels.len() as u32 + bars)).into_drawing_area();
    root.fill(&WHITE)?;
    let (head, mut rest) = root.split_vertically(HEAD);
    legend(&head, about, !sizes.is_empty())?;
    for &figure in panels {
        let (area, below) = rest.split_vertically(PANELS);
        for (area, &bytes) in area.split_evenly((1, sizes.len())).iter().zip(&sizes) {
            panel(area, points, bytes, figure)?;
        }
        rest = below;
    }
    if !rows.is_empty() {
        room_used(&rest, rows)?;
    }
    root.present()?;
    Ok(())
}

fn legend(area: &Area<'_>, about: &About, of_commits: bool) -> Result<()> {
    area.draw(&Text::new("How fast", (20, 12), (FONT, 24).into_font()))?;
    area.draw(&Text::new(about.line(), (150, 19), (FONT, 15).into_font().color(&BLACK.mix(0.7))))?;
    if !of_commits {
        return Ok(());
    }
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
        Figure::PerSecond => format!("{} values: durable commits a second (x: against the directory)", size(bytes)),
        Figure::Step => format!("{} values: last write to durable, p50 to p99, us", size(bytes)),
    };
    let mut chart = ChartBuilder::on(area)
        .caption(title, (FONT, 17))
        .margin(14)
        .x_label_area_size(42)
        .y_label_area_size(72)
        .build_cartesian_2d(0f64..groups.len() as f64, range.clone().log_scale())?;
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
    for (group, writers) in groups.iter().enumerate() {
        let at = chart.backend_coord(&(group as f64 + 0.5, least));
        area.root_text(&format!("{writers} {}", round::writers(*writers)), below.clone(), (at.0, at.1 + 8))?;
    }
    Ok(())
}

/// A bar an aim, from the left to the part of its room that is used; beyond the line at 1 it is missed.
fn room_used(area: &Area<'_>, rows: &[Row]) -> Result<()> {
    let used = |row: &Row| row.used().clamp(1e-3, 1e3);
    let (least, most) =
        rows.iter().map(used).fold((0.5, 1.5), |(least, most): (f64, f64), used| (least.min(used), most.max(used)));
    let (from, to) = (least * 0.7, most * 6.0);
    let caption = "Aims: how much of the room an aim gives is used (up to 1 it is reached)";
    let mut chart = ChartBuilder::on(area)
        .caption(caption, (FONT, 17))
        .margin(14)
        .margin_left(NAMES)
        .x_label_area_size(30)
        .build_cartesian_2d((from..to).log_scale(), 0f64..rows.len() as f64)?;
    chart
        .configure_mesh()
        .disable_y_mesh()
        .light_line_style(BLACK.mix(0.06))
        .bold_line_style(BLACK.mix(0.18))
        .x_label_formatter(&|used| aims::digits(*used))
        .label_style((FONT, 14))
        .draw()?;
    let names = TextStyle::from((FONT, 14).into_font());
    for (nth, row) in rows.iter().enumerate() {
        let middle = rows.len() as f64 - nth as f64 - 0.5;
        let fill = color(if row.is_reached() { Way::Library } else { Way::Mount }).filled();
        chart.draw_series([Rectangle::new([(from, middle - 0.35), (used(row), middle + 0.35)], fill)])?;
        let (left, right) = (chart.backend_coord(&(from, middle)), chart.backend_coord(&(used(row), middle)));
        area.root_text(&row.what, names.pos(beside(HPos::Right)), (left.0 - 8, left.1))?;
        let figure = row.figure();
        let unit = if row.against.is_some() { "x".to_owned() } else { format!(" {}", row.unit) };
        let words = format!("{}{unit} (aim {})", aims::digits(figure), row.aim_words());
        area.root_text(&words, names.pos(beside(HPos::Left)), (right.0 + 6, right.1))?;
    }
    let aim = [(1.0, 0.0), (1.0, rows.len() as f64)];
    chart.draw_series([PathElement::new(aim, BLACK.stroke_width(2))])?;
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

fn beside(side: HPos) -> Pos {
    Pos::new(side, VPos::Center)
}

fn centered_above() -> Pos {
    Pos::new(HPos::Center, VPos::Bottom)
}

fn centered_below() -> Pos {
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
