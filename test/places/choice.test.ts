/** Laws of what is known of places, and of the choice among them, in random cases. */
import { assert, describe, it } from "@effect/vitest"
import * as Answers from "../../src/places/answers.ts"
import { type Candidate, chosen, endOf, inOrder, isSlow } from "../../src/places/choice.ts"
import { PlaceMemory } from "../../src/places/memory.ts"
import { mulberry } from "../support/random.ts"

const policies = ["soonest", "cheapest"] as const

const candidate = (random: () => number): Candidate => ({
  wait: random() < 0.1 ? Infinity : Math.max(0, 80_000 * random() - 20_000),
  answers: 1_000 + 60_000 * random() ** 3,
  margin: 5_000 * random(),
  fails: 1_000 * random(),
  cost: Math.ceil(4 * random()),
  stay: 0,
  hasFailed: random() < 0.2
})

/** Up to four places of a call, which may have its prompt in the cache of one, and the time until its deadline. */
const assertCases = (
  count: number,
  check: (all: ReadonlyArray<Candidate>, left: number, name: string) => void
): void => {
  for (let seed = 1; seed <= count; seed++) {
    const random = mulberry(seed)
    const all = Array.from({ length: 1 + Math.floor(4 * random()) }, () => candidate(random))
    if (random() < 0.4) all[0] = { ...all[0]!, stay: 1_000 + 20_000 * random() }
    check(all, 100_000 * random(), `seed ${seed}`)
  }
}

const best = (all: ReadonlyArray<Candidate>): number => Math.min(...all.map(endOf))

describe("the choice of places", () => {
  it("leaves no call without a place", () => {
    assertCases(2_000, (all, left, name) => {
      for (const policy of policies) assert.isNotEmpty(chosen(all, policy, left), `${name}: ${policy}`)
    })
  })

  describe("soonest", () => {
    it("has the place where the call ends first, unless its prompt is cached elsewhere", () => {
      assertCases(2_000, (all, left, name) => {
        if (all.some(({ stay }) => stay > 0)) return
        const first = all.find((each) => endOf(each) === best(all))!
        assert.include(chosen(all, "soonest", left), first, name)
      })
    })

    it("has no place where even a call that started now would end clearly later than at the best", () => {
      assertCases(2_000, (all, left, name) => {
        for (const each of chosen(all, "soonest", left)) {
          if (each.stay > 0) continue
          assert.isAtMost(each.answers, 1.25 * best(all) + 1_000, name)
        }
      })
    })

    it("has every place that answers as soon as the best, however long the wait", () => {
      assertCases(2_000, (all, left, name) => {
        if (all.some(({ stay }) => stay > 0)) return
        const equal = all.map((each) => ({ ...each, answers: 5_000 }))
        assert.strictEqual(chosen(equal, "soonest", left).length, all.length, name)
      })
    })

    it("keeps a call where its prompt is cached, unless it ends that much sooner elsewhere", () => {
      assertCases(2_000, (all, left, name) => {
        const cachedAt = all.find(({ stay }) => stay > 0)
        if (cachedAt === undefined || cachedAt.wait === Infinity) return
        const found = chosen(all, "soonest", left).filter((each) => each !== cachedAt)
        const isAlone = endOf(cachedAt) - best(all) <= cachedAt.stay
        assert.isTrue(
          found.every((each) => !isAlone && endOf(cachedAt) - endOf(each) > cachedAt.stay),
          name
        )
      })
    })

    it("leaves no queue that it would join", () => {
      assertCases(2_000, (all, left, name) => {
        for (const each of chosen(all, "soonest", left)) assert.include(chosen(all, "soonest", left, 2), each, name)
      })
    })
  })

  describe("cheapest", () => {
    it("has no place that costs more than one that answers in time for certain", () => {
      assertCases(2_000, (all, left, name) => {
        const safe = all.filter((each) => {
          const others = all.filter(({ cost, wait }) => cost > each.cost && wait < Infinity)
          const isLast = others.every((other) => endOf(other) + other.margin > left)
          return endOf(each) + each.margin <= left && isLast
        })
        const max = Math.min(...safe.map(({ cost }) => cost))
        for (const { cost } of chosen(all, "cheapest", left)) assert.isAtMost(cost, max, name)
      })
    })

    it("has the cheapest place without a deadline", () => {
      assertCases(2_000, (all, _, name) => {
        const open = all.filter(({ wait }) => wait < Infinity)
        const min = Math.min(...open.map(({ cost }) => cost))
        for (const { cost } of chosen(open, "cheapest", Infinity)) assert.strictEqual(cost, min, name)
      })
    })
  })

  it("calls a place slow only if it would be chosen with the quickest answers", () => {
    assertCases(2_000, (all, left, name) => {
      for (const policy of policies) {
        const answers = Math.min(...all.map((each) => each.answers))
        for (const each of all) {
          if (!isSlow(each, all, policy, left)) continue
          assert.notInclude(chosen(all, policy, left), each, name)
          const quick = { ...each, answers }
          assert.include(
            chosen(
              all.map((other) => (other === each ? quick : other)),
              policy,
              left
            ),
            quick,
            name
          )
        }
      }
    })
  })

  it("tries places by their waits, then where it has not failed, then by price, then in their order", () => {
    assertCases(2_000, (all, _, name) => {
      const order = inOrder(all)
      assert.sameMembers([...order], [...all], name)
      for (const [n, each] of order.slice(1).entries()) {
        const before = order[n]!
        if (before.wait !== each.wait) assert.isBelow(before.wait, each.wait, name)
        else if (before.hasFailed !== each.hasFailed) assert.isFalse(before.hasFailed, name)
        else assert.isAtMost(before.cost, each.cost, name)
      }
    })
  })
})

/** The times after answers of up to 1,000 tokens, which take `base` and `each` token, up to a factor. */
const learned = (base: number, each: number, noise = 0, seed = 1, count = 50) => {
  const random = mulberry(seed)
  let times: Answers.AnswerTimes | undefined
  for (let n = 0; n < count; n++) {
    const tokens = Math.ceil(1_000 * random())
    times = Answers.follow(times, tokens, (base + each * tokens) * (1 + noise * (2 * random() - 1)))
  }
  return times!
}

describe("answers", () => {
  it("learns the base and the time for each token", () => {
    for (const [base, each] of [
      [2_000, 16],
      [0, 30],
      [5_000, 0]
    ] as const) {
      const times = learned(base, each)
      for (const tokens of [10, 500, 4_000]) {
        assert.closeTo(Answers.expected(times, tokens), base + each * tokens, 1e-6 * (base + each * tokens))
      }
      assert.isBelow(Answers.margin(times), 1)
    }
  })

  it("never expects less for more tokens, nor an answer before the call", () => {
    for (let seed = 1; seed <= 200; seed++) {
      const random = mulberry(seed)
      let times: Answers.AnswerTimes | undefined
      for (let n = 0; n < 20; n++) {
        times = Answers.follow(times, Math.floor(1_000 * random()), Math.floor(60_000 * random()), 1_000 * random())
        const [less, more] = [Answers.expected(times, 100), Answers.expected(times, 900)]
        assert.isAtLeast(less, 0, `seed ${seed}`)
        assert.isAtLeast(more, less, `seed ${seed}`)
        // A line through the origin is the steepest.
        assert.isAtMost(more, Math.max(times.millis, (times.millis * 900) / Math.max(1e-9, times.tokens)) + 1e-6)
      }
    }
  })

  it("expects nearly all answers within the margin, if they vary by a third", () => {
    const random = mulberry(3)
    const times = learned(2_000, 16, 1 / 3)
    let late = 0
    for (let n = 0; n < 1_000; n++) {
      const tokens = Math.ceil(1_000 * random())
      const millis = (2_000 + 16 * tokens) * (1 + (2 * random() - 1) / 3)
      if (millis > Answers.expected(times, tokens) + Answers.margin(times)) late++
    }
    assert.isAtMost(late, 50)
  })

  it("follows a change within about ten answers", () => {
    let times = learned(2_000, 16)
    for (let n = 0; n < 16; n++) times = Answers.follow(times, 500, 100_000)
    assert.isAbove(Answers.expected(times, 500), 85_000)
  })

  it("takes a place without an answer for as good as the best, until its first call takes half as long as that", () => {
    assert.deepStrictEqual(
      [Answers.guess(0, 8_000), Answers.guess(4_000, 8_000), Answers.guess(4_001, 8_000)],
      [8_000, 8_000, 8_002]
    )
    // While no place has answered, nothing says that this one is slow.
    assert.deepStrictEqual([Answers.guess(6_000, undefined), Answers.guess(20_000, undefined)], [10_000, 20_000])
  })

  describe("slowdown", () => {
    const slowdown = (ages: ReadonlyArray<number>) =>
      Answers.slowdown(
        ages,
        (age) => age,
        () => 10_000
      )

    it("is none while no call is late: exactly half as long again is not", () => {
      assert.strictEqual(slowdown([]), 1)
      assert.strictEqual(slowdown([15_000, 9_000, 0]), 1)
      assert.isAbove(slowdown([15_001]), 1)
    })

    it("is small for a single call, however late, and large for many", () => {
      assert.isAtMost(slowdown([3_600_000, 1_000]), 1.25)
      assert.isAbove(slowdown(Array.from({ length: 8 }, () => 20_000)), 2)
    })

    it("never falls with another late call, nor with time", () => {
      const random = mulberry(5)
      for (let n = 0; n < 200; n++) {
        const ages = Array.from({ length: Math.ceil(20 * random()) }, () => 40_000 * random()).sort((a, b) => b - a)
        const later = ages.map((age) => age + 1_000)
        assert.isAtLeast(slowdown(later), slowdown(ages) - 1e-9)
      }
    })
  })
})

const tokens = 500

/** Sends a call, which is answered after `millis`. */
const answer = (memory: PlaceMemory, at: number, millis: number, isProbe = false): void => {
  const call = memory.sent("p", tokens, isProbe, at)
  memory.answered("p", call, tokens, false, at + millis)
}

/** A place that answers in ten seconds. */
const usual = (): PlaceMemory => {
  const memory = new PlaceMemory()
  for (let n = 0; n < 20; n++) answer(memory, 0, 10_000)
  return memory
}

const timeOf = (memory: PlaceMemory, now: number): number | undefined => memory.timesOf("p", tokens, now).answers

describe("the memory of places", () => {
  it("knows nothing of a place before its first answer but for how long that has not come", () => {
    const memory = new PlaceMemory()
    memory.sent("p", tokens, false, 0)
    assert.deepStrictEqual([timeOf(memory, 4_000), memory.timesOf("p", tokens, 4_000).age], [undefined, 4_000])
  })

  it("expects longer answers as soon as calls are late that have no answer", () => {
    const memory = usual()
    for (let n = 0; n < 10; n++) memory.sent("p", tokens, false, 20_000)
    assert.closeTo(timeOf(memory, 20_000 + 15_000)!, 10_000, 1)
    assert.isAbove(timeOf(memory, 20_000 + 15_001)!, 20_000)
  })

  it("learns from a call that was given up late, and nothing from one that failed soon", () => {
    const memory = usual()
    const calls = Array.from({ length: 2 }, () => memory.sent("p", tokens, false, 20_000))
    memory.unanswered("p", calls[0]!, 20_200)
    assert.closeTo(timeOf(memory, 20_200)!, 10_000, 1)
    memory.unanswered("p", calls[1]!, 50_000)
    assert.closeTo(timeOf(memory, 50_000)!, 12_500, 1)
  })

  it("tries a slow place after twenty calls and 30 s, then half as often, and forgets what a probe disproves", () => {
    const memory = usual()
    for (let n = 0; n < 20; n++) memory.left("p", 10_000, 100_000)
    assert.isFalse(memory.isTried("p", 129_999))
    assert.isTrue(memory.isTried("p", 130_000))
    assert.isFalse(memory.isTried("p", 130_000))
    answer(memory, 130_000, 40_000, true)
    for (let n = 0; n < 19; n++) memory.left("p", 10_000, 170_000)
    // Its answers take 40 s, and each time the pause doubles.
    assert.isFalse(memory.isTried("p", 300_000))
    memory.left("p", 10_000, 300_000)
    assert.isTrue(memory.isTried("p", 300_000))
    answer(memory, 300_000, 9_000, true)
    assert.strictEqual(timeOf(memory, 309_000), 9_000)
    memory.isQuick("p")
    assert.isFalse(memory.isTried("p", 900_000))
  })

  it("tries a slow place as soon as most of its calls end within the time of one quick answer", () => {
    // Calls that were sent a second apart, and end `apart` milliseconds apart. The tries, as numbers of the answers before.
    const tries = (count: number, apart: number): ReadonlyArray<number> => {
      const memory = usual()
      const calls = Array.from({ length: count }, (_, n) => memory.sent("p", tokens, false, 20_000 + 1_000 * n))
      memory.left("p", 10_000, 40_000)
      return calls.flatMap((call, n) => {
        const now = 80_000 + apart * n
        memory.answered("p", call, tokens, false, now)
        return memory.isTried("p", now) ? [n + 1] : []
      })
    }
    // Nine are under way when the first has ended. Five of them are more than half.
    assert.deepStrictEqual(tries(10, 2_000), [6])
    assert.deepStrictEqual(tries(10, 2_001), [])
    assert.deepStrictEqual(tries(9, 0), [6])
    assert.deepStrictEqual(tries(8, 0), [])
    // It recovers later.
    assert.deepStrictEqual(tries(10, 10_000), [])
  })

  describe("says why calls go to a place, or do not:", () => {
    const of = (memory: PlaceMemory, now: number) => memory.status(now)[0]!
    const outlook = { wait: 0, isPaused: false }

    it("untried, or full", () => {
      const memory = new PlaceMemory()
      memory.foresaw("p", outlook, 0)
      assert.deepStrictEqual(of(memory, 0), {
        pool: "p",
        state: "untried",
        answerMillis: undefined,
        triedAt: undefined
      })
      memory.foresaw("p", { ...outlook, wait: 1 }, 0)
      assert.strictEqual(of(memory, 999).state, "full")
      assert.strictEqual(of(memory, 1_000).state, "untried")
      memory.foresaw("p", { ...outlook, isPaused: true }, 1_000)
      assert.strictEqual(of(memory, 1_000).state, "full")
      answer(memory, 2_000, 9_000)
      assert.deepInclude(of(memory, 11_000), { state: "open", answerMillis: 9_000 })
    })

    it("slow, until a call has found out that it is not", () => {
      const memory = usual()
      for (let n = 0; n < 20; n++) memory.left("p", 10_000, 100_000)
      assert.deepInclude(of(memory, 100_000), { state: "slow", answerMillis: 10_000, triedAt: 130_000 })
      memory.isTried("p", 130_000)
      const probe = memory.sent("p", tokens, true, 130_000)
      assert.strictEqual(of(memory, 130_000).state, "trial")
      assert.isAbove(of(memory, 160_000).answerMillis!, 10_000)
      memory.answered("p", probe, tokens, false, 139_000)
      memory.isQuick("p")
      assert.deepInclude(of(memory, 139_000), { state: "open", answerMillis: 9_000, triedAt: undefined })
    })

    it("refused by its provider, until a call is answered", () => {
      const memory = usual()
      memory.setAside("p", 100_000)
      assert.deepInclude(of(memory, 100_000), { state: "refused", triedAt: 130_000 })
      const call = memory.sent("p", tokens, false, 130_000)
      assert.strictEqual(of(memory, 130_000).state, "trial")
      memory.answered("p", call, tokens, false, 139_000)
      assert.strictEqual(of(memory, 139_000).state, "open")
    })
  })

  it("does not try a slow place while calls are under way there, or were answered lately", () => {
    const memory = usual()
    for (let n = 0; n < 20; n++) memory.left("p", 10_000, 0)
    const call = memory.sent("p", tokens, false, 50_000)
    assert.isFalse(memory.isTried("p", 90_000))
    memory.answered("p", call, tokens, false, 90_000)
    assert.isFalse(memory.isTried("p", 119_999))
    assert.isTrue(memory.isTried("p", 120_000))
  })
})
