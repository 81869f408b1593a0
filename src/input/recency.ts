/** Maps that forget the least recently used entry. A map keeps the order of insertion, so an entry that is put again is last. */

/** Puts an entry last. Beyond `most` entries the first is removed, and `forgotten` is called with its value. */
export const put = <K, V>(
  map: Map<K, V>,
  key: K,
  value: V,
  most: number,
  forgotten: (value: V) => void = () => {}
): void => {
  map.delete(key)
  map.set(key, value)
  for (const [oldest, gone] of map) {
    if (map.size <= most) return
    map.delete(oldest)
    forgotten(gone)
  }
}

/** Enough that entries in use are a fourth of a table at the least, however many there are. */
const looks = 4

/**
 * Makes room in a table whose entries may be in use: removes the first ones that `isIdle`, until no more than `max` are left. An
 * entry in use becomes the last instead. No more than `upTo` are looked at, so that a table of which most is in use costs no more
 * with each new entry.
 */
export const shed = <K, V>(
  map: Map<K, V>,
  max: number,
  isIdle: (value: V, key: K) => boolean,
  forgotten: (value: V, key: K) => void = () => {},
  upTo = looks
): void => {
  let left = Math.min(upTo, map.size)
  for (const [key, value] of map) {
    if (map.size <= max || left-- === 0) return
    map.delete(key)
    if (isIdle(value, key)) forgotten(value, key)
    else map.set(key, value)
  }
}
