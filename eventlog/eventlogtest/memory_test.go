package eventlogtest_test

import (
	"testing"
	"time"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/eventlog"
	"github.com/tidings-dev/tidings/eventlog/eventlogtest"
)

func TestMemory(t *testing.T) {
	eventlogtest.Run(t, func(*testing.T) eventlogtest.Home {
		log := eventlogtest.NewMemory()
		return eventlogtest.Home{
			Log:    log,
			Append: func(_ *testing.T, events ...tidings.Event) { log.Append(events...) },
			Expire: func(t *testing.T) {
				if _, err := log.ExpireEvents(t.Context(), -time.Hour); err != nil {
					t.Fatal(err)
				}
			},
			Backup: func(*testing.T) func(*testing.T) {
				restore := log.Backup()
				return func(*testing.T) { restore() }
			},
			Start: func(*testing.T) eventlog.Log { return log },
			Cut:   func(_ *testing.T, after int64) { log.Cut(after) },
			Restart: func(*testing.T) eventlog.Log {
				log.Restart()
				return log
			},
		}
	})
}
