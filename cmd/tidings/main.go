// Command tidings is the Tidings server and its tools.
package main

import (
	"os"

	"github.com/tidings-dev/tidings/internal/cli"
)

func main() { os.Exit(cli.Main()) }
