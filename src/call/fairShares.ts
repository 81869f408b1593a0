/**
 * A bounded memory that several owners share. When it is full, who holds most gives first, so nobody who sends ever new things makes the
 * memory of another one short.
 */

/** A thing in the memory. */
export interface SharedThing {
  readonly owner: string
  /** Its part of the bound. */
  size: number
  /** When it was used last, in milliseconds. */
  usedAt: number
}

// -----------------------------------------------------------------------------
// The order of use
// -----------------------------------------------------------------------------

/** A thing in a list. */
interface UsedLink<K> {
  readonly thing: K
  before: UsedLink<K> | undefined
  after: UsedLink<K> | undefined
}

/** Things in the order of use. Its first one is found at once; a `Set` whose first entries were deleted searches for it. */
class InOrder<K> {
  first: UsedLink<K> | undefined = undefined
  private last: UsedLink<K> | undefined = undefined

  add(link: UsedLink<K>): void {
    link.before = this.last
    if (this.last === undefined) this.first = link
    else this.last.after = link
    this.last = link
  }

  remove(link: UsedLink<K>): void {
    const { after, before } = link
    if (before === undefined) this.first = after
    else before.after = after
    if (after === undefined) this.last = before
    else after.before = before
    link.before = link.after = undefined
  }
}

// -----------------------------------------------------------------------------
// FairShares
// -----------------------------------------------------------------------------

interface Owner<K> {
  readonly name: string
  /** Its things, the least recently used first. */
  readonly kept: InOrder<K>
  size: number
}

/** The places of a thing: among all, and among those of its owner. */
interface ThingPlace<K> {
  readonly inAll: UsedLink<K>
  readonly inOwn: UsedLink<K>
  readonly owner: Owner<K>
}

/**
 * Prefixes unused for longer are in hardly any cache, so they go first, whoever owns them. It is the longest time for which Anthropic
 * keeps a prefix.
 */
const protectedMillis = 3_600_000

export class FairShares<K extends SharedThing> {
  /** The sum of the sizes. */
  size = 0
  private readonly max: number
  private readonly forgotten: (thing: K) => void
  private readonly places = new Map<K, ThingPlace<K>>()
  private readonly all = new InOrder<K>()
  private readonly owners = new Map<string, Owner<K>>()
  /** The owners by the leading zeros of their size, so that the largest are found at once: those of one class differ by less than 2. */
  private readonly classes = Array.from({ length: 33 }, () => new Set<Owner<K>>())

  /** `forgotten` is called with each thing that had to go. */
  constructor(max: number, forgotten: (thing: K) => void) {
    this.max = max
    this.forgotten = forgotten
  }

  /** Notes that a thing is used and how large it is now, and forgets others until all fit. */
  keep(thing: K, size: number, now: number): void {
    const place = this.places.get(thing) ?? this.placeOf(thing)
    const { inAll, inOwn, owner } = place
    if (thing.size > 0) {
      this.all.remove(inAll)
      owner.kept.remove(inOwn)
    }
    this.all.add(inAll)
    owner.kept.add(inOwn)
    this.resize(owner, size - thing.size)
    thing.size = size
    thing.usedAt = now
    while (this.size > this.max && this.all.first !== inAll) this.forget(this.next(thing, now))
  }

  private placeOf(thing: K): ThingPlace<K> {
    const link = (): UsedLink<K> => ({ thing, before: undefined, after: undefined })
    const owner = this.owners.get(thing.owner) ?? { name: thing.owner, kept: new InOrder<K>(), size: 0 }
    const place = { inAll: link(), inOwn: link(), owner }
    this.owners.set(owner.name, owner)
    this.places.set(thing, place)
    return place
  }

  /** The next thing to go: one that nobody uses any more, or the oldest of an owner that holds about the most. */
  private next(kept: K, now: number): K {
    const oldest = this.all.first!.thing
    if (now - oldest.usedAt >= protectedMillis) return oldest
    const [largest] = this.classes.find((owners) => owners.size > 0) as unknown as [Owner<K>]
    const { thing } = largest.kept.first!
    return thing === kept ? oldest : thing
  }

  private forget(thing: K): void {
    const { inAll, inOwn, owner } = this.places.get(thing)!
    this.places.delete(thing)
    this.all.remove(inAll)
    owner.kept.remove(inOwn)
    this.resize(owner, -thing.size)
    if (owner.size === 0) this.owners.delete(owner.name)
    this.forgotten(thing)
  }

  /** Puts an owner last in the class of its new size, so that owners of one class take turns. */
  private resize(owner: Owner<K>, by: number): void {
    this.size += by
    this.classes[Math.clz32(owner.size)]!.delete(owner)
    owner.size += by
    if (owner.size === 0) return
    this.classes[Math.clz32(owner.size)]!.add(owner)
  }
}
