// Checks a checkpoint, an inclusion proof and a consistency proof with golang.org/x/mod/sumdb, which nobody here wrote.
// Input on stdin, JSON: see type input. Prints "ok", or what is wrong, and exits with 1.
package main

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

type input struct {
	Key        string   // as note.NewVerifier takes it
	Checkpoint string   // a signed note
	Earlier    string   // an earlier one; may be empty
	Growth     []string // the consistency proof between them, base64
	Index      int64    // of Record
	Record     []byte   // base64 in JSON
	Path       []string // its inclusion proof, base64
	Witness    string   // the key of a witness that must have signed Checkpoint; may be empty
}

// cosigner verifies what tlog-cosignature defines, which the package does not know: note.Open hands it the text and the signature.
type cosigner struct {
	name   string
	hash   uint32
	public ed25519.PublicKey
}

func (c cosigner) Name() string    { return c.name }
func (c cosigner) KeyHash() uint32 { return c.hash }
func (c cosigner) Verify(text, signature []byte) bool {
	if len(signature) != 8+ed25519.SignatureSize {
		return false
	}
	at := binary.BigEndian.Uint64(signature)
	signed := fmt.Sprintf("cosignature/v1\ntime %d\n%s", at, text)
	return ed25519.Verify(c.public, []byte(signed), signature[8:])
}

func newCosigner(key string) (note.Verifier, error) {
	parts := strings.SplitN(key, "+", 3)
	if len(parts) != 3 {
		return nil, fmt.Errorf("not a key: %q", key)
	}
	decoded, err := base64.StdEncoding.DecodeString(parts[2])
	if err != nil || len(decoded) != 1+ed25519.PublicKeySize || decoded[0] != 4 {
		return nil, fmt.Errorf("not the key of a witness: %q", key)
	}
	hash, err := strconv.ParseUint(parts[1], 16, 32)
	sum := sha256.Sum256(append([]byte(parts[0]+"\n"), decoded...))
	if err != nil || uint32(hash) != binary.BigEndian.Uint32(sum[:4]) {
		return nil, fmt.Errorf("the hash of the key is wrong: %q", key)
	}
	return cosigner{parts[0], uint32(hash), decoded[1:]}, nil
}

func main() {
	var given input
	err := json.NewDecoder(os.Stdin).Decode(&given)
	if err == nil {
		err = check(given)
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("ok")
}

func check(given input) error {
	verifier, err := note.NewVerifier(given.Key)
	if err != nil {
		return err
	}
	size, root, err := open(given.Checkpoint, verifier)
	if err != nil {
		return err
	}
	if given.Witness != "" {
		witness, err := newCosigner(given.Witness)
		if err != nil {
			return err
		}
		opened, err := note.Open([]byte(given.Checkpoint), note.VerifierList(verifier, witness))
		if err != nil {
			return err
		}
		if len(opened.Sigs) != 2 {
			return fmt.Errorf("%d of two signatures", len(opened.Sigs))
		}
	}
	path, err := hashes(given.Path)
	if err != nil {
		return err
	}
	if err := tlog.CheckRecord(tlog.RecordProof(path), size, root, given.Index, tlog.RecordHash(given.Record)); err != nil {
		return err
	}
	if given.Earlier == "" {
		return nil
	}
	before, old, err := open(given.Earlier, verifier)
	if err != nil {
		return err
	}
	growth, err := hashes(given.Growth)
	if err != nil {
		return err
	}
	return tlog.CheckTree(tlog.TreeProof(growth), size, root, before, old)
}

// open reads a checkpoint as C2SP's tlog-checkpoint has it: origin, size, root. The package's own ParseTree reads another form.
func open(text string, verifier note.Verifier) (int64, tlog.Hash, error) {
	var root tlog.Hash
	opened, err := note.Open([]byte(text), note.VerifierList(verifier))
	if err != nil {
		return 0, root, err
	}
	lines := strings.Split(opened.Text, "\n")
	if len(lines) < 4 {
		return 0, root, fmt.Errorf("not a checkpoint")
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil {
		return 0, root, err
	}
	found, err := hashes(lines[2:3])
	if err != nil {
		return 0, root, err
	}
	return size, found[0], nil
}

func hashes(encoded []string) ([]tlog.Hash, error) {
	var found []tlog.Hash
	for _, text := range encoded {
		bytes, err := base64.StdEncoding.DecodeString(text)
		if err != nil || len(bytes) != tlog.HashSize {
			return nil, fmt.Errorf("not a hash: %q", text)
		}
		found = append(found, tlog.Hash(bytes))
	}
	return found, nil
}
