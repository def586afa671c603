package eventlogtest_test

import (
	"testing"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/eventlog/eventlogtest"
)

func TestMemoryLog(t *testing.T) {
	eventlogtest.Run(t, func(*testing.T) eventlogtest.Home {
		log := eventlogtest.NewMemory()
		return eventlogtest.Home{
			Log: log,
			Append: func(_ *testing.T, events ...tidings.Event) {
				log.Append(events...)
				<-log.Woken()
			},
		}
	})
}
