package devstack

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	ephemeralPrefix = "tallystick-ephemeral-" // name of directories that an ephemeral Start makes
	ephemeralMark   = "ephemeral"             // file that says the whole directory may be deleted
	rootBase        = "/var/tmp"              // where root's data goes when Dir cannot be reached by others
)

// dropUser is the user that Postgres runs as when we are root: it refuses to run as root. nil means ourselves.
type dropUser struct {
	name     string
	uid, gid uint32
}

// dropTo returns the user to run Postgres as, given our own effective uid: nil unless that is root, then postgres if
// there is such a user, else nobody.
func dropTo(euid int) (*dropUser, error) {
	if euid != 0 {
		return nil, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err := strconv.ParseUint(u.Uid, 10, 32)
		if err != nil {
			return nil, fmt.Errorf("read the uid of user %s: %w", name, err)
		}
		gid, err := strconv.ParseUint(u.Gid, 10, 32)
		if err != nil {
			return nil, fmt.Errorf("read the gid of user %s: %w", name, err)
		}
		return &dropUser{name: name, uid: uint32(uid), gid: uint32(gid)}, nil
	}
	return nil, errors.New("postgres refuses to run as root, and there is neither a user postgres nor a user nobody to run it as")
}

// credential is what a child's process attributes need to run as user; nil for a nil user.
func (u *dropUser) credential() *syscall.Credential {
	if u == nil {
		return nil
	}
	return &syscall.Credential{Uid: u.uid, Gid: u.gid, Groups: []uint32{u.gid}}
}

// placeDir returns where the data of dir goes: dir itself, made absolute, unless user cannot reach it.
func placeDir(dir string, user *dropUser) (string, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return "", fmt.Errorf("resolve the data directory: %w", err)
	}
	if user == nil || user.reaches(abs) {
		return abs, nil
	}
	return filepath.Join(rootBase, fmt.Sprintf("tallystick-%x", sha256.Sum256([]byte(abs)))[:len("tallystick-")+16]), nil
}

// reaches reports whether the user may enter path, or would after we had made what is missing of it.
func (u *dropUser) reaches(path string) bool {
	for p := path; ; p = filepath.Dir(p) {
		info, err := os.Stat(p)
		switch {
		case errors.Is(err, os.ErrNotExist):
		case err != nil || !info.IsDir():
			return false
		default:
			enter := info.Mode().Perm() & 0o001
			if st, ok := info.Sys().(*syscall.Stat_t); ok {
				if st.Uid == u.uid {
					enter = info.Mode().Perm() & 0o100
				} else if st.Gid == u.gid {
					enter = info.Mode().Perm() & 0o010
				}
			}
			if enter == 0 {
				return false
			}
		}
		if p == filepath.Dir(p) {
			return true
		}
	}
}

// makeDir returns the absolute directory for the data, made and safe to use.
func makeDir(dir string, ephemeral bool, user *dropUser) (string, error) {
	if dir == "" {
		if !ephemeral {
			return "", errors.New("a data directory is needed unless the stack is ephemeral")
		}
		base := os.TempDir()
		if user != nil && !user.reaches(base) {
			base = rootBase
		}
		made, err := os.MkdirTemp(base, ephemeralPrefix)
		if err != nil {
			return "", fmt.Errorf("make the ephemeral data directory: %w", err)
		}
		return made, open(made)
	}
	where, err := placeDir(dir, user)
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(where, 0o755); err != nil {
		return "", fmt.Errorf("make the data directory: %w", err)
	}
	info, err := os.Lstat(where)
	if err != nil {
		return "", fmt.Errorf("look at the data directory: %w", err)
	}
	// The replacement lies where anyone may write: somebody else could have made it first.
	if st, ok := info.Sys().(*syscall.Stat_t); ok && strings.HasPrefix(where, rootBase+"/") && int(st.Uid) != os.Geteuid() {
		return "", fmt.Errorf("data directory %s belongs to another user (uid %d)", where, st.Uid)
	}
	if ephemeral {
		entries, err := os.ReadDir(where)
		if err != nil {
			return "", fmt.Errorf("look at the data directory: %w", err)
		}
		if _, err := os.Stat(filepath.Join(where, ephemeralMark)); err != nil && len(entries) > 0 {
			return "", fmt.Errorf("data directory %s is not empty, and an ephemeral stack would delete it", where)
		}
	}
	if user != nil {
		return where, open(where)
	}
	return where, nil
}

// open lets other users pass through dir, which MkdirTemp and a strict umask forbid.
func open(dir string) error {
	if err := os.Chmod(dir, 0o755); err != nil {
		return fmt.Errorf("let the database user enter the data directory: %w", err)
	}
	return nil
}

// sweep removes what ephemeral stacks left in base when they were killed with their supervisor: directories that
// nobody holds and that are older than a minute, so that one being made is not taken for one. Errors are not reported:
// the next run tries again.
func sweep(base, except string) {
	found, err := filepath.Glob(filepath.Join(base, ephemeralPrefix+"*"))
	if err != nil {
		return
	}
	for _, dir := range found {
		info, err := os.Lstat(dir)
		if err != nil || !info.IsDir() || dir == except || time.Since(info.ModTime()) < time.Minute {
			continue
		}
		if _, err := os.Stat(filepath.Join(dir, ephemeralMark)); err != nil {
			continue
		}
		if st, ok := info.Sys().(*syscall.Stat_t); !ok || int(st.Uid) != os.Geteuid() {
			continue
		}
		lock, err := lockDir(dir)
		if err != nil {
			continue
		}
		if reap(dir) == nil {
			os.RemoveAll(dir)
		}
		lock.release()
	}
}
