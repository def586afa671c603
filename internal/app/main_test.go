package app_test

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"testing"

	"github.com/tidings-dev/tidings/internal/app"
	"github.com/tidings-dev/tidings/internal/config"
	"github.com/tidings-dev/tidings/internal/testdb"
)

// serveFile makes the test binary run a server, as a separate process that can be
// killed.
const serveFile = "TIDINGS_TEST_SERVE"

// serveRelay makes the server a relay.
const serveRelay = "TIDINGS_TEST_RELAY"

func TestMain(m *testing.M) {
	if file := os.Getenv(serveFile); file != "" {
		if err := serve(file); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	// These tests wait more than they compute.
	if err := flag.Set("test.parallel", "6"); err != nil {
		panic(err)
	}
	os.Exit(testdb.Main(m))
}

func serve(file string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	load := func(inForce *config.Config) (config.Config, error) {
		return config.Load(config.Input{Files: []string{file}, Relay: os.Getenv(serveRelay) != "", Before: inForce})
	}
	cfg, err := load(nil)
	if err != nil {
		return err
	}
	server, err := app.New(ctx, cfg, app.Options{
		Logger:  slog.New(slog.NewTextHandler(os.Stderr, nil)),
		Version: "test", Load: load,
	})
	if err != nil {
		return err
	}
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	go func() {
		for range hangups {
			_, _ = server.Reload(ctx) // logs its errors
		}
	}()
	return server.Run(ctx)
}
