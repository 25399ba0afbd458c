// Foreign reads a folder of C2SP tlog-tiles with golang.org/x/mod/sumdb, the reference
// implementation that the Go toolchain carries, and says whether it believes what is there.
//
//	foreign FOLDER VERIFIER-KEY
//
// The checkpoint is opened by sumdb/note, every entry's hash is read through sumdb/tlog's
// TileHashReader, which authenticates the tiles, and compared with that of the entry in its bundle.
package main

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"foreign/note"
	"foreign/tlog"
)

const height = 8

type folder string

func (f folder) Height() int { return height }

func (f folder) SaveTiles([]tlog.Tile, [][]byte) {}

// ReadTiles reads tiles where C2SP puts them: as in x/mod, without the height.
func (f folder) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	var found [][]byte
	for _, tile := range tiles {
		data, err := os.ReadFile(filepath.Join(string(f), c2sp(tile)))
		if err != nil {
			return nil, err
		}
		found = append(found, data)
	}
	return found, nil
}

func c2sp(tile tlog.Tile) string {
	return "tile/" + strings.TrimPrefix(tile.Path(), fmt.Sprintf("tile/%d/", height))
}

func check(root folder, vkey string) (int64, error) {
	verifier, err := note.NewVerifier(vkey)
	if err != nil {
		return 0, err
	}
	signed, err := os.ReadFile(filepath.Join(string(root), "checkpoint"))
	if err != nil {
		return 0, err
	}
	opened, err := note.Open(signed, note.VerifierList(verifier))
	if err != nil {
		return 0, err
	}
	lines := strings.Split(opened.Text, "\n")
	if len(lines) != 4 || lines[0] != verifier.Name() {
		return 0, fmt.Errorf("checkpoint is not one of %s", verifier.Name())
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil {
		return 0, err
	}
	hash, err := base64.StdEncoding.DecodeString(lines[2])
	if err != nil || len(hash) != tlog.HashSize {
		return 0, fmt.Errorf("root is no hash")
	}
	tree := tlog.Tree{N: size, Hash: tlog.Hash(hash)}
	reader := tlog.TileHashReader(tree, root)
	for first := int64(0); first < size; first += 1 << height {
		width := min(size-first, 1<<height)
		if err := bundle(root, tree, reader, first, width); err != nil {
			return 0, err
		}
	}
	return size, nil
}

func bundle(root folder, tree tlog.Tree, reader tlog.HashReader, first, width int64) error {
	tile := tlog.Tile{H: height, L: 0, N: first >> height, W: int(width)}
	name := strings.Replace(c2sp(tile), "tile/0/", "tile/entries/", 1)
	data, err := os.ReadFile(filepath.Join(string(root), name))
	if err != nil {
		return err
	}
	var indexes []int64
	for index := first; index < first+width; index++ {
		indexes = append(indexes, tlog.StoredHashIndex(0, index))
	}
	hashes, err := reader.ReadHashes(indexes)
	if err != nil {
		return err
	}
	for place, want := range hashes {
		if len(data) < 2 || len(data) < 2+int(binary.BigEndian.Uint16(data)) {
			return fmt.Errorf("%s is too short", name)
		}
		end := 2 + int(binary.BigEndian.Uint16(data))
		if tlog.RecordHash(data[2:end]) != want {
			return fmt.Errorf("entry %d is not the one of the log", first+int64(place))
		}
		data = data[end:]
	}
	if len(data) != 0 {
		return fmt.Errorf("%s is too long", name)
	}
	// The proofs of the reference implementation, made from these tiles and checked by it.
	proof, err := tlog.ProveRecord(tree.N, first, reader)
	if err != nil {
		return err
	}
	if err := tlog.CheckRecord(proof, tree.N, tree.Hash, first, hashes[0]); err != nil {
		return err
	}
	past, err := tlog.TreeHash(first+1, reader)
	if err != nil {
		return err
	}
	grown, err := tlog.ProveTree(tree.N, first+1, reader)
	if err != nil {
		return err
	}
	return tlog.CheckTree(grown, tree.N, tree.Hash, first+1, past)
}

func main() {
	size, err := check(folder(os.Args[1]), os.Args[2])
	if err != nil {
		fmt.Println("refused:", err)
		os.Exit(1)
	}
	fmt.Println("believed:", size)
}
