// Copyright (c) Example Traders. All rights reserved.
// Licensed under the MIT License. See LICENSE in the project root.

using System;
using System.Collections.Generic;
global using static System.Math;

[assembly: InternalsVisibleTo("Traders.Tests")]

namespace Traders.Orders
{
    using System.Linq;

    /// <summary>
    /// Keeps the open orders of one <see cref="Customer"/> &amp; their totals.
    /// </summary>
    /// <remarks>Not safe for several threads.</remarks>
    /// <typeparam name="T">What is ordered.</typeparam>
    [Serializable]
    public class OrderBook<T> : IOrderBook<T>
        where T : IProduct
    {
        #region Fields
        private readonly List<Order<T>> _orders = new();
        public const int Largest = 5000;
        #endregion

        /// <summary>Gets the sum that a customer may owe before new orders wait.</summary>
        /// <value>A sum in cents.</value>
        public decimal CreditLimit
        {
            get => _limit;
            set
            {
                _limit = value;
                Review();
            }
        }

        public int Count => _orders.Count;

        /// <summary>Raised after an order has left the warehouse.</summary>
        public event EventHandler<OrderEventArgs<T>> Shipped;

        /// <summary>
        /// Creates an empty book for a customer.
        /// </summary>
        /// <param name="customer">The customer.</param>
        public OrderBook(Customer customer)
        {
            _customer = customer;
            _limit = customer.Limit;
        }

        /// <summary>Finds the order with a <paramref name="number"/> in <c>O(log n)</c>.</summary>
        public Order<T> this[int number]
        {
            get { return Search(number, 0, _orders.Count); }
        }

        /// <summary>
        /// Adds an order to the end of the queue.
        /// <para>Orders beyond the limit wait for approval.</para>
        /// </summary>
        /// <param name="order">The order to add.</param>
        /// <returns>Whether it was accepted.</returns>
        /// <exception cref="ArgumentNullException">Without an order.</exception>
        [Obsolete("Use AddAsync")]
        public bool Add(Order<T> order)
        {
            bool Fits(decimal sum) => sum <= _limit;
            _orders.Add(order);
            return Fits(order.Total);
        }

        /// <inheritdoc/>
        public override string ToString()
        {
            var names = _orders.Select(order => order.Name);
            return string.Join(", ", names);
        }

        /// <summary>Adds up the totals of two books.</summary>
        public static decimal operator +(OrderBook<T> left, OrderBook<T> right)
        {
            return left.Total + right.Total;
        }

        ~OrderBook()
        {
            _orders.Clear();
            Log.Write("book is gone");
            _limit = 0;
        }

        /// <summary>How urgently an order has to leave.</summary>
        private enum Urgency
        {
            Low,
            /// <summary>Leaves on the same day.</summary>
            High,
        }
    }

    /// <summary>What a book of orders is able to do.</summary>
    public interface IOrderBook<T>
    {
        /// <summary>Adds one more order to the book.</summary>
        bool Add(Order<T> order);
    }

    /// <summary>A sum of money in one currency.</summary>
    public readonly record struct Money(decimal Amount, string Currency);

    /// <summary>Decides whether an order may be shipped.</summary>
    public delegate bool Approval(Order<IProduct> order);

    // Helpers for strings of the warehouse.
    internal static class Labels
    {
        /// <summary>Shortens a label to what fits on a parcel.</summary>
        internal static string Shorten(this string label, int length)
            => label.Length <= length ? label : label[..length] + "…";
    }
}
