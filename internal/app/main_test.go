package app_test

import (
	"os"
	"testing"

	"github.com/tidings-dev/tidings/internal/testdb"
)

func TestMain(m *testing.M) { os.Exit(testdb.Main(m)) }
