package cli

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"fmt"

	"github.com/spf13/cobra"
)

const secretBytes = 32 // of an HMAC-SHA256 secret, as many as its hash has

func secretCommand() *cobra.Command {
	var pair bool
	cmd := &cobra.Command{
		Use:   "secret",
		Short: "Make a secret that signs webhooks",
		Long: `Make a secret that signs an endpoint's webhooks (Standard Webhooks): one that
the receiver shares (whsec_, HMAC-SHA256), or with --ed25519 a private key
(whsk_) and the public key (whpk_) with which receivers verify.`,
		Example: "  tidings secret\n  tidings secret --ed25519",
		Args:    exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			out := cmd.OutOrStdout()
			if !pair {
				_, err := fmt.Fprintln(out, newSecret())
				return err
			}
			public, private, err := ed25519.GenerateKey(rand.Reader)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(out, "for the endpoint's secret:  whsk_%s\nfor the receiver:           whpk_%s\n",
				base64.StdEncoding.EncodeToString(private), base64.StdEncoding.EncodeToString(public))
			return err
		},
	}
	cmd.Flags().BoolVar(&pair, "ed25519", false, "a pair of Ed25519 keys")
	return cmd
}

// newSecret returns a secret for HMAC-SHA256.
func newSecret() string {
	key := make([]byte, secretBytes)
	_, _ = rand.Read(key) // it never fails
	return "whsec_" + base64.StdEncoding.EncodeToString(key)
}
