/*
 * Copyright 2024 Example Traders
 *
 * Licensed under the Apache License, Version 2.0 (the "License");
 * you may not use this file except in compliance with the License.
 */
@file:JvmName("Caches")

package traders.cache

import java.time.Duration
import java.time.Instant

private const val LARGEST_CACHE = 4096

/** Remembers what was loaded for a limited time. */
typealias Loader<K, V> = suspend (K) -> V

/**
 * Keeps values that are expensive to load until they are too old.
 *
 * @param K what values are found by
 */
@Suppress("TooManyFunctions")
open class Cache<K : Any, V>(
    private val lifetime: Duration,
    private val load: Loader<K, V>,
) : AutoCloseable {
    private val entries = HashMap<K, Entry<V>>()

    /** How many values are remembered at this moment. */
    val size: Int
        get() = entries.count { (_, entry) -> !entry.isStale() }

    init {
        require(!lifetime.isNegative) { "lifetime must not be negative" }
    }

    /** Creates a cache whose values live for one minute. */
    constructor(load: Loader<K, V>) : this(Duration.ofMinutes(1), load) {
        log("cache with the usual lifetime")
    }

    /**
     * Returns the value of a key and loads it when it is missing.
     *
     * @param key what to look for
     * @throws LoadException when it cannot be loaded
     */
    @Throws(LoadException::class)
    suspend fun get(key: K): V {
        val entry = entries[key]
        if (entry != null && !entry.isStale()) return entry.value
        return load(key).also { put(key, it) }
    }

    // Forgets the oldest values first
    private fun shrink(wanted: Int) {
        while (entries.size > wanted) {
            entries.remove(entries.minBy { it.value.since }.key)
        }
    }

    override fun close() = entries.clear()

    /** A value beside the moment it was loaded. */
    private data class Entry<V>(val value: V, val since: Instant) {
        /** Tells whether the value is older than it may be. */
        fun isStale(now: Instant = Instant.now()): Boolean =
            now.isAfter(since.plusSeconds(60)) ||
                now.isBefore(since)
    }

    companion object {
        /** Builds a cache that never forgets anything. */
        fun <K : Any, V> endless(load: Loader<K, V>): Cache<K, V> {
            val lifetime = Duration.ofDays(36_500)
            return Cache(lifetime, load)
        }
    }
}

/** What can go wrong while a value is loaded. */
sealed interface Failure {
    /** Says in one sentence what happened. */
    fun describe(locale: Locale): String

    data object Timeout : Failure {
        override fun describe(locale: Locale) = translate("it took too long", locale)
    }
}

/** How long values of a kind are kept. */
enum class Lifetime(val seconds: Long) {
    SHORT(10),
    LONG(3600);

    /** Converts this lifetime to a duration of the library. */
    fun toDuration(): Duration {
        check(seconds > 0)
        return Duration.ofSeconds(seconds)
    }
}

/** The cache that all of the threads share. */
object SharedCache {
    /** Empties the shared cache on every node. */
    fun clear(nodes: List<Node>) {
        nodes.forEach { it.send(Clear) }
        log("cleared")
    }
}

/** Doubles the lifetime of every value in a cache. */
fun <K : Any, V> Cache<K, V>.extended(): Cache<K, V> = copy(lifetime = lifetime.multipliedBy(2))

/** Shows the age of a value in words. */
val Instant.age: String
    get() = Duration.between(this, Instant.now()).toMinutes().let { "$it minutes" }

fun main() {
    val cache = Cache<String, String>(Duration.ofSeconds(5)) { it.uppercase() }
    println(cache.size)
}
