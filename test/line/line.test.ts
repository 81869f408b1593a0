/** A line with a law of its own: the smallest there is, a number of units that calls hold. */
import { assert, describe, it } from "@effect/vitest"
import type * as Scheduler from "effect/Scheduler"
import { Hold } from "../../src/line/hold.ts"
import { type Law, Refused } from "../../src/line/law.ts"
import * as Waker from "../../src/line/waker.ts"
import { Line, type LineEvents, type PermitGate } from "../../src/line/line.ts"

interface State {
  held: number
  limit: number
}

interface Terms {
  readonly state: State
  readonly ask: number
  readonly grant: { readonly units: number }
  readonly refusal: string
}

class Call extends Hold<Terms> {
  readonly stops: Array<Parameters<Hold["stopped"]>[0]> = []

  override stopped(by: Parameters<Hold["stopped"]>[0]): void {
    this.stops.push(by)
  }
}

type ThePort = ConstructorParameters<typeof Line<Terms, Call>>[0]

interface Options {
  readonly limit?: number
  /** Whether decisions are stored only by `store()`. */
  readonly isStored?: boolean
  readonly batch?: number
  readonly expires?: boolean
  readonly events?: Partial<LineEvents<Call>>
  readonly gate?: PermitGate
}

/** A line over a port whose state is one object. What happened is in `seen`. */
const made = ({ batch = 1, events, expires = false, gate, isStored = false, limit = 10 }: Options = {}) => {
  const seen: Array<string> = []
  const weights: Array<number> = []
  const tasks: Array<() => void> = []
  const clock = { now: 1_000 }
  const state = { held: 0, limit }
  let open: (() => void) | undefined
  let isLate = false
  let decisions = 0
  const news: Array<boolean> = []
  const by = { id: "store", transact: (step: (draft: State, now: number) => unknown) => step(state, clock.now) }
  const port = {
    id: "here",
    batch,
    lag: 0,
    isStored: true,
    outlives: false,
    now: () => clock.now,
    state,
    transact: (
      step: (draft: State, now: number, max: number) => unknown,
      done?: (a: unknown, by: unknown, late: boolean) => boolean
    ) => {
      if (done === undefined) return step(state, clock.now, batch)
      const decide = (): void => {
        let answer: unknown
        do {
          decisions++
          answer = step(state, clock.now, batch)
          news.push((answer as { readonly isNews: boolean }).isNews)
        } while (done(answer, by, isLate))
      }
      if (isStored) open = decide
      else decide()
      return undefined
    }
  } as never as ThePort
  const law: Law<Terms, Call> = {
    expires,
    admit: (draft, _id, { ask }, weight) => {
      weights.push(weight)
      if (ask > draft.limit) return new Refused(`${ask} of ${draft.limit}`)
      if (draft.held + ask > draft.limit) return { by: "concurrency", millis: Infinity }
      draft.held += ask
      return { units: ask }
    },
    wait: (_draft, id, head, weight) => void seen.push(`${id} waits with ${head?.agent ?? "nobody"}, ${weight}`),
    release: (draft, id, { units }) => {
      draft.held -= units
      seen.push(`${id} gives back ${units}`)
    }
  }
  const granted = ({ agent }: Call): void => void seen.push(`${agent} goes`)
  const line = new Line<Terms, Call>(port, law, { granted, ...events }, undefined, gate)
  const call = (agent: string, ask: number, more: { readonly weight?: number; readonly claim?: Call["claim"] } = {}) =>
    new Call({ agent, priority: 0, weight: 1, ...more }, ask, ask, (resume) => tasks.push(resume))
  return {
    line,
    state,
    clock,
    seen,
    weights,
    /** Whether each decision admitted or refused anybody. */
    news,
    call,
    /** Asks for a call whose caller sleeps if it must. */
    ask: (agent: string, units: number, more?: Parameters<typeof call>[2]) => {
      const hold = line.ask(call(agent, units, more))
      if (hold.phase === "waiting") hold.listen(() => seen.push(`${agent} resumes`))
      return hold
    },
    end: (hold: Call, part = 1) =>
      line.settle(hold, (draft) => {
        draft.held -= hold.grant!.units
        return part
      }),
    /** Stores what was decided. */
    store: (late = false) => {
      const decide = open
      open = undefined
      isLate = late
      decide?.()
      isLate = false
    },
    wakeAll: () => {
      for (const task of tasks.splice(0)) task()
    },
    decisions: () => decisions
  }
}

const goes = (seen: ReadonlyArray<string>): ReadonlyArray<string> => seen.filter((each) => / goes$|resumes$/.test(each))

describe("a line", () => {
  it("admits a call at once while there is room, and its caller has not waited", () => {
    const { ask, line, seen, state } = made()
    const hold = ask("a", 10)
    assert.deepStrictEqual(
      [hold.phase, hold.grant, hold.since, hold.isOpen, hold.isAwaited],
      ["held", { units: 10 }, 0, true, false]
    )
    assert.deepStrictEqual([state.held, line.queue.size], [10, 0])
    assert.deepStrictEqual(seen, ["a goes", "here waits with nobody, 1"].toReversed())
  })

  it("lets a call wait, and the end of another admits it, in a later task", () => {
    const { ask, clock, end, seen, wakeAll } = made()
    const first = ask("a", 8)
    clock.now = 2_000
    const second = ask("b", 5)
    assert.deepStrictEqual([second.phase, second.since, second.isOpen], ["waiting", 2_000, false])
    assert.deepStrictEqual(second.stops.at(-1), { by: "concurrency", millis: Infinity })
    assert.isTrue(end(first))
    assert.deepStrictEqual([second.phase, second.isAwaited], ["held", true])
    assert.deepStrictEqual(goes(seen), ["a goes", "b goes"])
    wakeAll()
    assert.deepStrictEqual(goes(seen), ["a goes", "b goes", "b resumes"])
  })

  it("serves calls in the order of the queue, so a small one does not pass a large one of its agent", () => {
    const { ask, end, line, seen } = made()
    const first = ask("a", 8)
    ask("b", 9)
    ask("b", 1)
    assert.deepStrictEqual(goes(seen), ["a goes"])
    assert.strictEqual(line.queue.size, 2)
    end(first)
    assert.deepStrictEqual(goes(seen), ["a goes", "b goes", "b goes"])
    assert.strictEqual(line.queue.size, 0)
  })

  it("puts a call before the others of its agent on request", () => {
    const { ask, call, end, line } = made()
    const first = ask("a", 10)
    const behind = ask("b", 10)
    const before = call("b", 10)
    line.join(before, true)
    end(first)
    assert.deepStrictEqual([before.phase, behind.phase], ["held", "waiting"])
  })

  it("decides only on arrival at an empty queue, and for a new first call", () => {
    const { ask, call, decisions, line, news } = made()
    ask("a", 10)
    ask("b", 10)
    assert.strictEqual(decisions(), 2)
    assert.deepStrictEqual(news, [true, false])
    ask("b", 1)
    ask("c", 1)
    assert.strictEqual(decisions(), 2)
    line.join(call("b", 1), true)
    assert.strictEqual(decisions(), 3)
  })

  it("tells the law the weight of all agents that wait, or of the one that arrives", () => {
    const { ask, end, seen, weights } = made()
    const first = ask("a", 10, { weight: 3 })
    assert.deepStrictEqual(weights, [3])
    ask("b", 10, { weight: 2 })
    ask("c", 10, { weight: 5 })
    end(first)
    assert.strictEqual(weights.at(-1), 5)
    assert.include(seen, "here waits with b, 2")
    assert.strictEqual(seen.at(-1), "here waits with c, 5")
  })

  it("refuses at once what no wait would admit, and charges nothing", () => {
    const { ask, seen, state } = made({ events: { refused: ({ agent }) => void seen.push(`${agent} refused`) } })
    const hold = ask("a", 11)
    assert.deepStrictEqual([hold.phase, hold.refusal, hold.isOpen], ["ended", "11 of 10", false])
    assert.strictEqual(state.held, 0)
    assert.deepStrictEqual(seen, ["here waits with nobody, 1", "a refused"])
  })

  it("refuses a call that waits once nothing can admit it, resumes its caller, and goes on with the next", () => {
    const { ask, end, line, seen, state, wakeAll } = made()
    const first = ask("a", 5)
    const second = ask("b", 10)
    const third = ask("c", 4)
    state.limit = 9
    end(first)
    assert.deepStrictEqual([second.phase, second.refusal, third.phase], ["ended", "10 of 9", "held"])
    assert.strictEqual(line.queue.size, 0)
    wakeAll()
    assert.deepStrictEqual(goes(seen), ["a goes", "c goes", "b resumes", "c resumes"])
  })

  it("passes a call that nothing limits", () => {
    const { call, line, seen, state } = made()
    const hold = call("a", 3)
    line.pass(hold, { units: 3 })
    assert.deepStrictEqual([hold.phase, hold.grant, state.held], ["held", { units: 3 }, 0])
    assert.deepStrictEqual(seen, ["a goes"])
  })
})

describe("what an agent was served", () => {
  /** Who goes when "z", "a" and "c" wait again and there is room for two, after "a" was served more than others. */
  const next = (isIdleBetween: boolean) => {
    const { ask, end, line, seen } = made()
    const blocker = ask("x", 10)
    const served = ask("a", 10)
    const gone = ask("b", 10)
    end(blocker)
    line.leave(gone)
    if (isIdleBetween) end(served)
    // Its weight keeps the time of the queue where it is.
    const other = ask("y", 10, { weight: 10 })
    if (!isIdleBetween) end(served)
    for (const agent of ["z", "a", "c"]) ask(agent, 5)
    end(other)
    return goes(seen).slice(-2)
  }

  it("is remembered as long as somebody waits", () => {
    assert.deepStrictEqual(next(false), ["z goes", "c goes"])
  })

  it("is forgotten when a call goes without waiting", () => {
    assert.deepStrictEqual(next(true), ["z goes", "a goes"])
  })
})

describe("the end of a hold", () => {
  it("counts once", () => {
    const { ask, end, state } = made()
    const hold = ask("a", 4)
    assert.deepStrictEqual([end(hold), end(hold)], [true, false])
    assert.deepStrictEqual([hold.phase, state.held], ["ended", 0])
  })

  it("is the same after its caller has begun", () => {
    const { ask, end, state } = made()
    const hold = ask("a", 4)
    hold.phase = "begun"
    assert.isTrue(hold.isOpen)
    assert.isTrue(end(hold))
    assert.strictEqual(state.held, 0)
  })

  it("removes it from the queue if it waits, and the next call is decided on", () => {
    const { ask, end, line } = made()
    ask("a", 5)
    const large = ask("b", 9)
    const small = ask("c", 5)
    assert.isFalse(end(large))
    assert.deepStrictEqual([large.phase, small.phase, line.queue.size], ["ended", "held", 0])
  })

  it("of a call behind the first changes nothing for the others", () => {
    const { ask, decisions, end, line } = made()
    ask("a", 5)
    ask("b", 9)
    const behind = ask("b", 9)
    const before = decisions()
    assert.isFalse(end(behind))
    assert.deepStrictEqual([line.queue.size, decisions()], [1, before])
  })

  it("corrects what its agent counts as having been served", () => {
    const order = (part: number) => {
      const { ask, end, seen } = made()
      const blocker = ask("x", 10)
      const [first, second, third] = [ask("a", 9), ask("b", 9), ask("b", 9), ask("a", 9)] as const
      end(blocker)
      end(first, part)
      end(second)
      end(third)
      return goes(seen).slice(1, 4)
    }
    assert.deepStrictEqual(order(1), ["a goes", "b goes", "a goes"])
    assert.deepStrictEqual(order(3), ["a goes", "b goes", "b goes"])
  })

  it("without a decision leaves the others waiting", () => {
    const { ask, line } = made()
    const first = ask("a", 10)
    const second = ask("b", 10)
    assert.isTrue(
      line.end(first, (draft) => {
        draft.held = 0
        return 1
      })
    )
    assert.strictEqual(second.phase, "waiting")
    line.decide()
    assert.strictEqual(second.phase, "held")
  })
})

describe("a line whose port stores decisions later", () => {
  it("gives back the charge of a caller that leaves when another one is told", () => {
    let leave: (() => void) | undefined
    const { ask, line, seen, state, store } = made({
      isStored: true,
      batch: 2,
      events: { granted: () => leave?.() }
    })
    const first = ask("a", 2)
    const second = ask("b", 3)
    leave = () => {
      leave = undefined
      line.leave(second)
    }
    store()
    assert.deepStrictEqual([first.phase, second.phase, state.held], ["held", "ended", 2])
    assert.deepStrictEqual(seen.slice(1), ["store gives back 3"])
  })

  it("tells nobody that is refused after its caller has left", () => {
    const refused: Array<string> = []
    let leave = (): void => {}
    const { ask, line, store } = made({
      isStored: true,
      batch: 2,
      events: { granted: () => leave(), refused: ({ agent }) => void refused.push(agent) }
    })
    ask("a", 2)
    const second = ask("b", 11)
    leave = () => line.leave(second)
    store()
    assert.deepStrictEqual([second.phase, second.refusal, refused], ["ended", undefined, []])
  })

  it("keeps what a call asked for when it was charged, if that is estimated again before it is stored", () => {
    const calls: Array<Call> = []
    const { ask, store } = made({
      isStored: true,
      batch: 2,
      events: { granted: (hold) => void (hold === calls[0] && (calls[1]!.ask = 7)) }
    })
    calls.push(ask("a", 2), ask("b", 3))
    store()
    assert.deepStrictEqual([calls[1]!.ask, calls[1]!.grant], [3, { units: 3 }])
  })

  it("lets a call that waits in two lines go in the first, and gives back what the second charges", () => {
    const claim = { isTaken: false, queues: 2 }
    const [one, other] = [made({ isStored: true }), made({ isStored: true })]
    const holds = [one, other].map(({ ask }) => ask("a", 4, { claim }))
    other.store()
    assert.isTrue(claim.isTaken)
    one.store()
    assert.deepStrictEqual(
      holds.map(({ phase }) => phase),
      ["waiting", "held"]
    )
    assert.deepStrictEqual([one.state.held, other.state.held], [0, 4])
    assert.include(one.seen, "store gives back 4")
  })

  it("gives back what comes too late if others count on it, and decides again", () => {
    const { ask, seen, state, store } = made({ isStored: true, expires: true })
    const hold = ask("a", 4)
    store(true)
    assert.deepStrictEqual([hold.phase, state.held], ["waiting", 0])
    assert.include(seen, "store gives back 4")
    store()
    assert.deepStrictEqual([hold.phase, state.held], ["held", 4])
  })

  it("does not decide again if what comes too late admits nobody", () => {
    const { ask, decisions, store } = made({ isStored: true, expires: true, limit: 2 })
    ask("a", 2)
    store()
    ask("b", 1)
    store(true)
    const before = decisions()
    store()
    assert.strictEqual(decisions(), before)
  })

  it("keeps what comes late if nobody counts on it", () => {
    const { ask, state, store } = made({ isStored: true })
    const hold = ask("a", 4)
    store(true)
    assert.deepStrictEqual([hold.phase, state.held], ["held", 4])
  })

  it("refuses late all the same", () => {
    const { ask, store } = made({ isStored: true, expires: true })
    const hold = ask("a", 11)
    store(true)
    assert.deepStrictEqual([hold.phase, hold.refusal], ["ended", "11 of 10"])
  })

  it("decides on as many as a batch has, and then on the next", () => {
    const { ask, decisions, seen, store } = made({ isStored: true, batch: 2 })
    for (const agent of ["a", "b", "c", "d"]) ask(agent, 3)
    store()
    assert.deepStrictEqual(goes(seen), ["a goes", "b goes", "c goes"])
    // Two, then the third and the fourth, which waits.
    assert.strictEqual(decisions(), 3)
  })
})

describe("the close of a line", () => {
  it("resumes all waiting calls without a refusal", () => {
    const refused: Array<string> = []
    const { ask, line, seen, wakeAll } = made({ events: { refused: ({ agent }) => void refused.push(agent) } })
    ask("a", 10)
    const waiting = [ask("b", 1), ask("c", 1)]
    line.clear()
    assert.deepStrictEqual(
      waiting.map(({ phase, refusal }) => [phase, refusal]),
      [
        ["ended", undefined],
        ["ended", undefined]
      ]
    )
    assert.deepStrictEqual([line.queue.size, refused], [0, []])
    wakeAll()
    assert.deepStrictEqual(goes(seen), ["a goes", "b resumes", "c resumes"])
  })

  it("says why if there is a reason", () => {
    const refused: Array<string> = []
    const { ask, line } = made({
      events: { refused: ({ agent, refusal }) => void refused.push(`${agent}: ${refusal}`) }
    })
    ask("a", 10)
    ask("b", 1)
    line.clear("gone")
    assert.deepStrictEqual(refused, ["b: gone"])
  })

  it("ends a call that is just arriving, which is not queued any more", () => {
    const { line, call, seen } = made()
    const { port } = line as never as { readonly port: { transact: (...args: Array<unknown>) => unknown } }
    const hold = call("a", 1)
    // The store is found to be away.
    port.transact = () => line.clear("away")
    line.arrive(hold)
    assert.deepStrictEqual([hold.phase, hold.refusal, line.queue.size], ["ended", "away", 0])
    assert.deepStrictEqual(seen, [])
  })
})

describe("a line with permits", () => {
  const permits = (free: number) => {
    const gate = {
      inHand: 0,
      taken: [] as Array<number>,
      take: (calls: number) => {
        gate.taken.push(calls)
        const more = Math.min(free, calls - gate.inHand)
        free -= more
        gate.inHand += more
      },
      release: () => {
        free++
      }
    }
    return gate
  }

  it("takes one for each call, and asks the port nothing without one", () => {
    const gate = permits(1)
    const { ask, decisions, end, line } = made({ gate })
    const first = ask("a", 1)
    const second = ask("b", 1)
    assert.deepStrictEqual([first.phase, second.phase, decisions(), gate.inHand], ["held", "waiting", 1, 0])
    const asked = gate.taken.length
    line.leave(ask("b", 1))
    assert.strictEqual(gate.taken.length, asked, "the first still lacks one")
    end(first)
    assert.deepStrictEqual([second.phase, gate.inHand], ["held", 0])
  })

  it("keeps one in hand for a call that must wait for its limit", () => {
    const gate = permits(2)
    const { ask, end } = made({ gate })
    const first = ask("a", 8)
    const second = ask("b", 8)
    assert.strictEqual(gate.inHand, 1)
    end(first)
    assert.deepStrictEqual([second.phase, gate.inHand], ["held", 0])
  })

  it("takes none while nobody waits", () => {
    const gate = permits(5)
    const { line } = made({ gate })
    line.decide()
    assert.deepStrictEqual([gate.taken, gate.inHand], [[0], 0])
  })

  it("admits no more in a batch than it has permits, and says which calls are decided on", () => {
    const gate = permits(2)
    const next: Array<ReadonlyArray<string>> = []
    const { ask, seen, store } = made({
      gate,
      isStored: true,
      batch: 3,
      events: { deciding: (calls) => void next.push(calls.map(({ agent }) => agent)) }
    })
    for (const agent of ["a", "b", "c", "d"]) ask(agent, 1)
    store()
    assert.deepStrictEqual(goes(seen), ["a goes", "b goes"])
    assert.deepStrictEqual(next.at(-1), ["a", "b"])
    assert.strictEqual(Math.max(...gate.taken), 3)
  })

  it("asks for none for a call that is refused, which leaves it to the next", () => {
    const gate = permits(1)
    const { ask, decisions, store } = made({ gate, isStored: true, batch: 2 })
    const [first, second] = [ask("a", 11), ask("b", 1)]
    store()
    assert.deepStrictEqual([first.phase, second.phase, decisions()], ["ended", "held", 1])
  })

  it("does not list a call that arrives while nobody waits, nor more than the first without permits", () => {
    const next: Array<number> = []
    const { ask } = made({ gate: permits(2), events: { deciding: ({ length }) => void next.push(length) } })
    ask("a", 1)
    assert.deepStrictEqual(next, [])
    const { ask: askFreely, line } = made()
    for (const agent of ["a", "b", "c"]) askFreely(agent, 10)
    assert.deepStrictEqual(
      line.next.map(({ agent }) => agent),
      ["b"]
    )
  })

  it("is asked in the order that its owner gives", () => {
    const heads: Array<Call> = []
    const { ask, end } = made({ events: { heads: () => heads } })
    const first = ask("a", 10)
    const [second, third] = [ask("b", 10), ask("c", 10)]
    heads.push(third, second)
    end(first)
    assert.deepStrictEqual([second.phase, third.phase], ["waiting", "held"])
  })
})

describe("a hold", () => {
  it("calls its caller back at once if the wait has ended already", () => {
    const { ask, seen } = made()
    ask("a", 10).listen(() => seen.push("listened"))
    assert.strictEqual(seen.at(-1), "listened")
  })
})

/** A scheduler whose tasks run by hand. */
const manual = () => {
  const tasks: Array<() => void> = []
  const scheduler = {
    makeDispatcher: () => ({ scheduleTask: (task: () => void) => void tasks.push(task) })
  } as never as Scheduler.Scheduler
  return { wake: Waker.make(scheduler), tasks }
}

describe("a waker", () => {
  it("resumes callers in their order, in one later task", () => {
    const { tasks, wake } = manual()
    const seen: Array<number> = []
    for (const n of [1, 2, 3]) wake(() => seen.push(n))
    assert.deepStrictEqual([seen, tasks.length], [[], 1])
    tasks.shift()!()
    assert.deepStrictEqual([seen, tasks.length], [[1, 2, 3], 0])
  })

  it("resumes whom a caller adds in the same task, and starts another task for later ones", () => {
    const { tasks, wake } = manual()
    const seen: Array<string> = []
    wake(() => {
      seen.push("first")
      wake(() => seen.push("added"))
    })
    tasks.shift()!()
    assert.deepStrictEqual([seen, tasks.length], [["first", "added"], 0])
    wake(() => seen.push("later"))
    assert.strictEqual(tasks.length, 1)
    tasks.shift()!()
    assert.deepStrictEqual(seen, ["first", "added", "later"])
  })

  it("yields after 2,048 callers", () => {
    const { tasks, wake } = manual()
    let resumed = 0
    for (let n = 0; n < 2_049; n++) wake(() => resumed++)
    tasks.shift()!()
    assert.deepStrictEqual([resumed, tasks.length], [2_048, 1])
    tasks.shift()!()
    assert.deepStrictEqual([resumed, tasks.length], [2_049, 0])
  })

  it("throws what a caller throws in a task of its own, after the others", () => {
    const { tasks, wake } = manual()
    const seen: Array<string> = []
    wake(() => {
      throw new Error("careless")
    })
    wake(() => seen.push("other"))
    tasks.shift()!()
    assert.deepStrictEqual(seen, ["other"])
    assert.throws(tasks.shift()!, "careless")
  })
})
