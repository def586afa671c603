package beside

import (
	"os"
	"os/exec"
	"regexp"
	"testing"

	"github.com/tidings-dev/tidings/internal/testtool"
)

// python is Debian's Python, which has Debian's packages.
const python = "/usr/bin/python3"

// needPython skips the test unless Debian's Python has a module.
func needPython(t *testing.T, module string) {
	t.Helper()
	if exec.Command(python, "-c", "import "+module).Run() != nil {
		testtool.Missing(t, "Python's "+module)
	}
}

// snippet returns the documentation's code for a framework.
func snippet(t *testing.T, framework, language string) string {
	t.Helper()
	text, err := os.ReadFile("../../docs/relay.md")
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(`(?s)\*\*` + framework + `\*\*.*?` + "```" + language + "\n(.*?)```").FindSubmatch(text)
	if found == nil {
		t.Fatalf("docs/relay.md has no %s for %s", language, framework)
	}
	return string(found[1])
}
