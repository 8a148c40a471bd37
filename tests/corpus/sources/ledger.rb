# frozen_string_literal: true

# Copyright (c) Example Traders
# Released under the MIT License.

require "json"
require_relative "ledger/entry"

module Traders
  # Money that has moved, and everything that follows from it.
  module Accounting
    LARGEST = 1_000_000

    # Keeps the entries of one account in the order they were booked.
    #
    # @api public
    class Ledger < Base
      include Enumerable

      attr_reader :entries

      # Opens the ledger of an account.
      #
      # @param account [Account] whose ledger it is
      def initialize(account)
        @account = account
        @entries = []
        super()
      end

      # Books an amount and returns the new balance.
      #
      #   ledger.book(100)
      #
      # @param cents [Integer] the amount
      # @return [Integer] the balance
      def book(cents, at: Time.now)
        raise ArgumentError, "nothing to book" if cents.zero?

        @entries << Entry.new(cents, at)
        balance
      end

      def balance = @entries.sum(&:cents)

      # Sorts ledgers by what they are worth.
      def <=>(other)
        return nil unless other.is_a?(Ledger)
        balance <=> other.balance
      end

      class << self
        # Finds the ledger of an account by its number.
        def find(number)
          account = Account.find(number)
          new(account)
        end
      end

      # Loads a ledger from a file of JSON.
      def self.load(path)
        rows = JSON.parse(File.read(path))
        rows.each { |row| book(row["cents"]) }
      end

      private

      # Forgets entries that are older than a year.
      def prune
        @entries.reject! { |entry| entry.at < Time.now - YEAR }
        log("pruned")
      end
    end
  end
end

# Raised where a booking would exceed the limit.
class Traders::OverLimit < StandardError
  def initialize(limit)
    @limit = limit
    super("more than #{limit}")
  end
end

=begin
Prints the balance of every account on the screen.
=end
def report(ledgers)
  ledgers.each do |ledger|
    puts ledger.balance
  end
end

report(Traders::Accounting::Ledger.all)
