//
//  Player.swift
//  Jukebox
//
//  Created by Somebody on 01.02.2024.
//  Copyright © 2024 Example Traders. All rights reserved.
//

import Foundation
@testable import JukeboxCore

private let largestQueue = 500

/// Plays songs one after the other.
///
/// Songs that cannot be read are skipped.
@MainActor
public final class Player: ObservableObject {
    @Published private(set) var current: Song?
    private var queue: [Song] = []

    /// How loud the music is, between zero and one.
    public var volume: Float {
        get { mixer.volume }
        set { mixer.volume = min(max(newValue, 0), 1) }
    }

    // MARK: - Life cycle

    /// Creates a player for an output.
    /// - Parameter output: where the music goes
    public init(output: Output) {
        self.mixer = Mixer(output: output)
        mixer.start()
    }

    deinit {
        mixer.stop()
        queue.removeAll()
        log("player is gone")
    }

    /// Puts a song at the end of the queue.
    ///
    /// - Parameters:
    ///   - song: the song
    ///   - urgent: whether it goes first
    /// - Returns: its place in the queue
    @discardableResult
    public func enqueue(_ song: Song, urgent: Bool = false) -> Int {
        queue.insert(song, at: urgent ? 0 : queue.count)
        return queue.firstIndex(of: song)!
    }

    /** Finds the song that is played at a position. */
    subscript(position: Int) -> Song? {
        guard queue.indices.contains(position) else { return nil }
        return queue[position]
    }

    /// The ways in which a song may end.
    enum Ending {
        case finished
        case skipped(by: Listener)

        /// Tells whether a listener has chosen this ending.
        var isChosen: Bool {
            if case .skipped = self { return true }
            return false
        }
    }
}

/// Whatever music may come out of.
protocol Output: AnyObject {
    /// Says which speakers the music comes out of.
    var name: String { get async throws }

    /// Sends samples to the speakers at once.
    func write(_ samples: [Float]) throws
}

/// A song with everything that is printed on its cover.
struct Song: Hashable {
    let title: String

    /// Shortens the title to fit on a display.
    func shortened(to length: Int) -> String {
        guard title.count > length else { return title }
        return title.prefix(length) + "…"
    }
}

// MARK: - Sorting

extension Song: Comparable {
    /// Sorts songs by their titles, whatever the case.
    static func < (left: Song, right: Song) -> Bool {
        let titles = [left, right].map { $0.title.lowercased() }
        return titles[0] < titles[1]
    }
}

/// Mixes two songs into each other over some seconds.
func crossfade(from old: Song, to new: Song, seconds: Double = 3) async throws -> Samples {
    let faded = try await old.samples().fadingOut(seconds)
    return faded.mixed(with: try await new.samples().fadingIn(seconds))
}
