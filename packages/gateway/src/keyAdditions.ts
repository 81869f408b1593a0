/** Adds keys to the options of a running gateway. */
import * as Effect from "effect/Effect"
import * as Semaphore from "effect/Semaphore"
import { type AddedKeys, type KeyChange, type KeyChanged, newKey } from "./settings/newKeys.ts"
import { type Options, parse } from "./options.ts"
import type { Rule } from "./settings/values.ts"

/** The additions to the options of a running gateway. It is mutable. */
export class KeyAdditions {
  private added: AddedKeys
  private readonly lock = Semaphore.makeUnsafe(1)
  private readonly reload: (options: Options) => Effect.Effect<void>
  private options: Options

  constructor(options: Options, reload: (options: Options) => Effect.Effect<void>) {
    this.options = options
    this.added = options.added ?? { keys: [], rules: [] }
    this.reload = reload
  }

  /** Everything that was added, and is not in the configuration by now. */
  readonly kept: Effect.Effect<AddedKeys> = Effect.sync(() => this.added)

  /** Replaces the options, and keeps what was added. */
  replace(next: Options): Effect.Effect<void> {
    return this.lock.withPermits(1)(Effect.suspend(() => this.apply(next, this.added)))
  }

  /** Makes a change. Fails with a text if the options do not allow it, and returns undefined if no such key was added. */
  change(change: KeyChange): Effect.Effect<KeyChanged | undefined, string> {
    return this.lock.withPermits(1)(
      Effect.suspend((): Effect.Effect<KeyChanged | undefined, string> => {
        if (this.options.keys === undefined) return Effect.fail(noKeys)
        const { expires, name, remove } = change
        const others = this.added.rules.filter(({ key }) => key !== name)
        if (remove === true) {
          const keys = this.added.keys.filter((key) => key.name !== name)
          const removed = this.added.keys.length - keys.length
          if (removed === 0) return Effect.undefined
          return Effect.as(this.apply(this.options, { keys, rules: others }), { name, removed })
        }
        const { entry, key } = newKey(name, expires)
        const rule = ruleOf(change)
        const rules = rule === undefined ? this.added.rules : [...others, rule]
        const config = { keys: [entry], rules: rule === undefined ? [] : [rule] }
        return Effect.as(this.apply(this.options, { keys: [...this.added.keys, entry], rules }), { name, key, config })
      }).pipe(
        Effect.catchDefect((defect) =>
          defect instanceof RangeError
            ? Effect.fail(defect.message.replace(/^Gateway\.reload: /, ""))
            : Effect.die(defect)
        )
      )
    )
  }

  private apply(options: Options, all: AddedKeys): Effect.Effect<void> {
    // First without what was added, so that an error has the places that the user knows.
    parse("Gateway.reload", options)
    return Effect.map(this.reload(withAdded(options, all)), () => {
      this.options = options
      this.added = besides(options, all)
    })
  }
}

const noKeys =
  'This gateway has no keys of its own, so its callers send the provider\'s: add the first one as "keys" to the configuration, as "floodgate gateway init" writes it'

/** The rule for a new key; undefined if nothing is special about it. */
const ruleOf = ({ dollarsPerDay, name, priority }: KeyChange): Rule | undefined =>
  dollarsPerDay === undefined && priority === undefined
    ? undefined
    : {
        key: name,
        ...(priority === undefined ? {} : { priority }),
        ...(dollarsPerDay === undefined ? {} : { cap: { dollars: dollarsPerDay, per: "day" } })
      }

/** The additions that the configuration does not have by now. If it has a key, it also has the rules of its holder. */
const besides = ({ keys = [] }: Options, { keys: added, rules }: AddedKeys): AddedKeys => {
  const known = new Set(keys.map(({ sha256 }) => sha256.toLowerCase()))
  const left = added.filter(({ sha256 }) => !known.has(sha256))
  const moved = new Set(added.filter((key) => !left.includes(key)).map(({ name }) => name))
  return { keys: left, rules: rules.filter(({ key = "" }) => !moved.has(key)) }
}

/** The options with what was added. Without keys of the configuration nothing is, because all callers would be refused. */
export const withAdded = (options: Options, all: AddedKeys | undefined): Options => {
  if (all === undefined || options.keys === undefined) return options
  const { keys, rules } = besides(options, all)
  return { ...options, keys: [...options.keys, ...keys], rules: [...rules, ...(options.rules ?? [])] }
}
