package vocabulary

// nearestLimit is how many bytes of a text are compared.
const nearestLimit = 64

// Nearest returns the candidate with the fewest edits (Levenshtein) from text,
// the first of equals, or "" if there are no candidates. Error messages suggest
// it. Only the first 64 bytes of text are compared.
func Nearest(text string, candidates []string) string {
	best, fewest := "", -1
	for _, c := range candidates {
		if d := edits(text[:min(len(text), nearestLimit)], c); fewest < 0 || d < fewest {
			best, fewest = c, d
		}
	}
	return best
}

func edits(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		diagonal := row[0]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			substitute := diagonal
			if a[i-1] != b[j-1] {
				substitute++
			}
			diagonal = row[j]
			row[j] = min(substitute, row[j]+1, row[j-1]+1)
		}
	}
	return row[len(b)]
}
