//! Columns of text, laid out as Docker's tables are: at least ten wide, three blanks apart, the last one not padded.

/// Least width of a column, its gap included.
const LEAST: usize = 10;
/// Blanks between columns.
const GAP: usize = 3;

/// Lays out lines whose cells are separated by tabs. A column is as wide as its widest cell in neighbouring lines;
/// what stands behind a line's last tab belongs to no column (Go's `text/tabwriter`, which Docker's tables come from).
pub(super) fn align(text: &str) -> String {
    let lines: Vec<Vec<&str>> = text.split('\n').map(|line| line.split('\t').collect()).collect();
    let mut widths: Vec<Vec<usize>> = lines.iter().map(|cells| vec![0; cells.len() - 1]).collect();
    let most = widths.iter().map(Vec::len).max().unwrap_or(0);
    for column in 0..most {
        let mut start = 0;
        while start < lines.len() {
            let has_column = |line: &&Vec<&str>| line.len() > column + 1;
            let count = lines[start..].iter().take_while(has_column).count();
            let block = start..start + count;
            let widest = lines[block.clone()].iter().map(|cells| cells[column].chars().count() + GAP).max();
            for line in &mut widths[block] {
                line[column] = widest.unwrap_or(0).max(LEAST);
            }
            start += count + 1;
        }
    }
    let mut out = String::with_capacity(text.len() * 2);
    for (index, (cells, widths)) in lines.iter().zip(&widths).enumerate() {
        if index > 0 {
            out.push('\n');
        }
        for (position, cell) in cells.iter().enumerate() {
            out.push_str(cell);
            if let Some(width) = widths.get(position) {
                out.extend(std::iter::repeat_n(' ', width - cell.chars().count()));
            }
        }
    }
    out
}

/// Cuts a text to a number of characters, the last of them `…` when something was cut.
pub(super) fn ellipsis(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    let mut cut: String = text.chars().take(most.saturating_sub(1)).collect();
    cut.push('…');
    cut
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_laid_out_as_docker_does() {
        // Recorded from `docker context ls`.
        let table = "NAME\tDESCRIPTION\tDOCKER ENDPOINT\tERROR\ndefault *\tCurrent DOCKER_HOST based configuration\tunix:///var/run/docker.sock\t\n";
        let wanted = "NAME        DESCRIPTION                               DOCKER ENDPOINT               ERROR\n\
                      default *   Current DOCKER_HOST based configuration   unix:///var/run/docker.sock   \n";
        assert_eq!(align(table), wanted);
    }

    #[test]
    fn a_line_without_a_column_ends_its_block() {
        assert_eq!(
            align("a\tb\nlonger than ten\tc\nplain\nx\ty"),
            "a                 b\nlonger than ten   c\nplain\nx         y"
        );
        assert_eq!(align(""), "");
    }

    #[test]
    fn cut_texts_end_in_an_ellipsis() {
        assert_eq!(ellipsis("sh -c 'while true; do sleep 1; done'", 20), "sh -c 'while true; …");
        assert_eq!(ellipsis("exactly twenty chars", 20), "exactly twenty chars");
    }
}
