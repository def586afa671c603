package app

import (
	"fmt"
	"path/filepath"

	"github.com/tidings-dev/tidings/internal/config"
	"github.com/tidings-dev/tidings/internal/datadir"
)

// keepPrivate takes away what others on this machine may do with the files in
// the data folder, and says what they could read.
func (a *App) keepPrivate(cfg *config.Config) {
	for _, path := range datadir.Exposed(cfg.DataDir) {
		switch {
		case path == cfg.DataDir:
			a.logger.Warn("others on this machine can look into the data folder; 'chmod 700' keeps it yours", "folder", path)
		case filepath.Base(path) == datadir.AdminToken:
			a.logger.Warn("others on this machine could read the admin token until now; if somebody may have, "+
				"remove the file and start again: that makes a new one", "file", path)
		default:
			a.logger.Warn("others on this machine could read a file in the data folder until now", "file", path)
		}
	}
	datadir.Tighten(cfg.DataDir)
	for i, t := range cfg.Auth.Tokens {
		if t.Token.File != "" && datadir.IsExposed(t.Token.File) {
			a.logger.Warn("others on this machine can read the file of a token; 'chmod 600' keeps it yours, "+
				"but somebody may have read it", "setting", fmt.Sprintf("auth.tokens[%d].token", i), "file", t.Token.File)
		}
	}
}
