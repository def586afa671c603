# Changes and events in one transaction, with Active Record and the documentation's
# callback.
require "active_record"

url, first, rounds, pooled = ARGV
ActiveRecord::Base.establish_connection(url: url, prepared_statements: pooled != "true")
User = Struct.new(:id)
class Current < ActiveSupport::CurrentAttributes
  attribute :user
end
require ENV.fetch("SNIPPET")
class Invoice < ApplicationRecord; end

def emit(action, id, more = "", *values)
  sql = ["SELECT tidings.emit('invoice', ?, ?#{more})", action.to_s, id.to_s, *values]
  Invoice.connection.exec_query(Invoice.sanitize_sql_array(sql))
end

first.to_i.step(by: 10).take(rounds.to_i).each do |paid|
  gifted, gone = paid + 1, paid + 2
  Current.user = User.new("ann")
  invoice = Invoice.transaction { Invoice.create!(id: paid).tap { emit(:paid, paid) } }
  Current.user = User.new("bob")
  Invoice.transaction do
    Invoice.create!(id: gifted)
    emit(:paid, gifted, ", url => ?, user_id => ?", "/gifts/#{gifted}", "carol")
  end
  Current.user = User.new("mallory")
  Invoice.transaction do
    Invoice.create!(id: gone)
    emit(:paid, gone)
    raise ActiveRecord::Rollback
  end
  Current.user = nil
  Invoice.transaction do
    invoice.update!(status: "voided")
    emit(:voided, paid)
  end
  begin
    Invoice.transaction do
      Invoice.create!(id: gone)
      emit(:lost, gone)
    end
    abort "an unknown action was emitted"
  rescue ActiveRecord::StatementInvalid => error
    raise unless error.cause.result.error_field(PG::PG_DIAG_SQLSTATE) == "22023" && error.message.include?("paid")
  end
end
