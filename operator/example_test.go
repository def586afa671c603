package operator_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/operator"
	"github.com/tidings-dev/tidings/outbox"
)

// A program's own server shows how its webhooks are doing, to those with a password.
func ExampleHandler() {
	hooks, end := openShop()
	defer end()
	authorize := func(r *http.Request) (operator.Caller, error) {
		user, password, _ := r.BasicAuth()
		if password != "open sesame" {
			return operator.Caller{}, errors.New("wrong password")
		}
		return operator.Caller{ID: user, Role: operator.Viewer}, nil
	}
	mux := http.NewServeMux()
	mux.Handle("/ops/", operator.Handler(hooks, authorize, operator.Options{Path: "/ops"}))
	server := httptest.NewServer(mux)
	defer server.Close()

	request, err := http.NewRequest(http.MethodGet, server.URL+"/ops/events", nil)
	if err != nil {
		log.Fatal(err)
	}
	request.SetBasicAuth("ann", "open sesame")
	response, err := server.Client().Do(request)
	if err != nil {
		log.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(response.Status, string(text[:9]))
	// Output: 200 OK {"items":
}

// Metrics of the outbox beside those of the program.
func ExampleCollector() {
	hooks, end := openShop()
	defer end()
	registry := prometheus.NewRegistry()
	registry.MustRegister(operator.Collector(hooks))
	go hooks.Run(context.Background()) // after the collector, which counts attempts from then on

	families, err := registry.Gather()
	if err != nil {
		log.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "tidings_log_head" {
			fmt.Println(f.GetName(), f.GetMetric()[0].GetGauge().GetValue())
		}
	}
	// Output: tidings_log_head 0
}

// openShop opens the outbox of a program.
func openShop() (hooks *outbox.Outbox, end func()) {
	folder, err := os.MkdirTemp("", "shop")
	if err != nil {
		log.Fatal(err)
	}
	hooks, err = outbox.Open(context.Background(), outbox.SQLiteFile(filepath.Join(folder, "shop.db")), outbox.Options{
		Types:     outbox.Types{"order": nil},
		Endpoints: []tidings.Endpoint{{URL: "https://warehouse.example/hook"}},
	})
	if err != nil {
		log.Fatal(err)
	}
	return hooks, func() {
		hooks.Close()
		os.RemoveAll(folder)
	}
}
