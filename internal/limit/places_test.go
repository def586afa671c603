package limit_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidings-dev/tidings/internal/limit"
)

func streams(total, perUser int64) *limit.Places {
	return limit.NewPlaces(limit.Options{What: "event streams", Total: total, PerUser: perUser, Wait: 2 * time.Second})
}

func enter(t *testing.T, p *limit.Places, user string, n int64) (leave func()) {
	t.Helper()
	leave, err := p.Enter(t.Context(), user, n)
	if err != nil {
		t.Fatalf("%s: %v", user, err)
	}
	return leave
}

// refused returns how long a user waited for a refusal, and the error.
func refused(t *testing.T, p *limit.Places, user string, n int64) (time.Duration, *limit.BusyError) {
	t.Helper()
	begun := time.Now()
	_, err := p.Enter(t.Context(), user, n)
	busy, ok := errors.AsType[*limit.BusyError](err)
	if !ok {
		t.Fatalf("%s: %v", user, err)
	}
	return time.Since(begun), busy
}

func TestPlaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := streams(3, 2)
		leave := enter(t, p, "ann", 1)
		enter(t, p, "ann", 1)
		wait, err := refused(t, p, "ann", 1)
		if want := "each user is limited to 2 event streams at a time"; wait != 2*time.Second ||
			!strings.Contains(err.Error(), want) {
			t.Errorf("after %v: %v", wait, err)
		}
		if err.RetryAfter != 2*time.Second {
			t.Errorf("try again after %v", err.RetryAfter)
		}
		enter(t, p, "bob", 1)
		if wait, err := refused(t, p, "bob", 1); wait != 2*time.Second ||
			!strings.Contains(err.Error(), "the server is limited to 3 event streams") {
			t.Errorf("after %v: %v", wait, err)
		}
		leave()
		leave() // does nothing
		enter(t, p, "bob", 1)
		refused(t, p, "cid", 1)
		if taken, refused := p.Usage(); taken != 3 || refused != 3 {
			t.Errorf("%d taken, %d refused", taken, refused)
		}
	})
}

func TestSeveralPlacesAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := streams(100, 60)
		leave := enter(t, p, "ann", 50)
		refused(t, p, "ann", 11)
		enter(t, p, "ann", 10)
		refused(t, p, "bob", 41)
		leave()
		enter(t, p, "bob", 60)
	})
}

// A freed place goes to the user who holds the fewest, even if others have waited
// longer. Small requests do not starve a large one.
func TestPlacesAreShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := streams(2, 2)
		first, second := enter(t, p, "ann", 1), enter(t, p, "ann", 1)
		var mu sync.Mutex
		var order []string
		var wg sync.WaitGroup
		for i, user := range []string{"ann", "ann", "bob", "cid"} {
			wg.Go(func() {
				time.Sleep(time.Duration(i) * time.Millisecond) // they arrive in this order
				leave := enter(t, p, user, 1)
				defer leave()
				mu.Lock()
				order = append(order, user)
				mu.Unlock()
				time.Sleep(10 * time.Millisecond)
			})
		}
		time.Sleep(time.Second)
		first()
		wg.Wait()
		second()
		if got := fmt.Sprint(order); got != "[bob cid ann ann]" {
			t.Errorf("order of entry: %v", got)
		}

		leave := enter(t, p, "ann", 1)
		var large func()
		wg.Go(func() { large = enter(t, p, "bob", 2) })
		synctest.Wait()
		wg.Go(func() { enter(t, p, "cid", 1)() }) // would fit
		synctest.Wait()
		leave()
		synctest.Wait()
		if large == nil {
			t.Fatal("the small request overtook the large one")
		}
		large()
		wg.Wait()
	})
}

func TestWaitForAPlaceIsCanceled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := streams(1, 1)
		leave := enter(t, p, "ann", 1)
		ctx, cancel := context.WithCancel(t.Context())
		for range 64 {
			go func() {
				if _, err := p.Enter(ctx, "ann", 1); !errors.Is(err, context.Canceled) {
					t.Errorf("after the caller left: %v", err)
				}
			}()
		}
		synctest.Wait()
		if wait, _ := refused(t, p, "ann", 1); wait != 0 {
			t.Errorf("the 65th request waited for %v", wait)
		}
		cancel()
		synctest.Wait()
		leave()
		enter(t, p, "ann", 1)
	})
}

func TestPlacesUnderLoad(t *testing.T) {
	p := limit.NewPlaces(limit.Options{What: "scans", Total: 3, PerUser: 2, Wait: time.Minute})
	var mu sync.Mutex
	total := 0
	users := map[string]int{}
	count := func(user string, n int) {
		mu.Lock()
		defer mu.Unlock()
		total, users[user] = total+n, users[user]+n
		if total > 3 || users[user] > 2 {
			t.Errorf("%d at once, %d of %s", total, users[user], user)
		}
	}
	var wg sync.WaitGroup
	for i := range 60 {
		wg.Go(func() {
			user := fmt.Sprint(i % 3)
			for range 50 {
				leave := enter(t, p, user, 1)
				count(user, 1)
				count(user, -1)
				leave()
			}
		})
	}
	wg.Wait()
}
