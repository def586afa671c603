// Command manifests reads Kubernetes objects in YAML from standard input and decodes each
// as the API server does with fieldValidation=Strict: an unknown or duplicate field is an
// error. It prints the kinds that are not of Kubernetes itself, which it cannot decode.
package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/kubernetes/scheme"
	plain "sigs.k8s.io/yaml"
)

func main() {
	if err := check(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func check(in io.Reader, out io.Writer) error {
	strict := serializer.NewCodecFactory(scheme.Scheme, serializer.EnableStrict).UniversalDeserializer()
	documents := yaml.NewYAMLReader(bufio.NewReader(in))
	var problems []error
	for n := 1; ; n++ {
		document, err := documents.Read()
		if errors.Is(err, io.EOF) {
			return errors.Join(problems...)
		}
		if err != nil {
			return err
		}
		var o map[string]any
		if err := plain.Unmarshal(document, &o); err == nil && o == nil { // only comments
			continue
		}
		_, _, err = strict.Decode(document, nil, nil)
		switch {
		case runtime.IsNotRegisteredError(err):
			fmt.Fprintln(out, o["kind"])
		case err != nil:
			problems = append(problems, fmt.Errorf("object %d: %w\n%s", n, err, document))
		}
	}
}
