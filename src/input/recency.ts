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
